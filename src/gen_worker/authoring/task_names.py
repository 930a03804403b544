"""The names of tasks, for the decorator; `authoring/tasks.py` says what each takes and returns."""

from typing import Literal, get_args

Task = Literal["chat", "completion", "embeddings", "image", "transcription", "speech"]
TASKS: tuple[Task, ...] = get_args(Task)
