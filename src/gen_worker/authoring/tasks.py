"""Kinds of functions that other programs know how to call, and what each takes and returns.

    task            payload has     output has                       called by
    chat            messages        content (one Struct, or many)    POST /v1/chat/completions
    completion      prompt          text (one Struct, or many)       POST /v1/completions
    embeddings      input           embeddings                       POST /v1/embeddings
    image           prompt          images                           POST /v1/images/generations
    transcription   file            text (one Struct, or many)       POST /v1/audio/transcriptions
    speech          input           audio                            POST /v1/audio/speech

A function declares its task with `@worker_function(task="chat")`. It uses these Structs as they are, subclasses of
them, or its own Structs with the same field names. A field that it leaves out is a parameter that it does not support.
"""

from typing import Annotated, Any, Literal

import msgspec

from gen_worker.authoring.assets import Asset


class TextPart(msgspec.Struct, tag_field="type", tag="text"):
    """A text piece of a message."""

    text: str


class ImageUrl(msgspec.Struct):
    """Where an image is: an https URL or a data URI."""

    url: str
    detail: str = "auto"


class ImagePart(msgspec.Struct, tag_field="type", tag="image_url"):
    """An image piece of a message."""

    image_url: ImageUrl


class FunctionCall(msgspec.Struct):
    """The function that a model calls. `arguments`: JSON as the model wrote it."""

    name: str
    arguments: str = "{}"


class ToolCall(msgspec.Struct):
    """A call of one of the tools offered by the caller."""

    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class ChatMessage(msgspec.Struct):
    """One message of a conversation. `tool_calls` of an assistant; `tool_call_id` of a `tool` message, which answers
    one of these calls.
    """

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart | ImagePart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] = []
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """All text of the message, its pieces joined by line breaks."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content if isinstance(part, TextPart))
        return self.content or ""


class ToolFunction(msgspec.Struct):
    """A function that a model may call. `parameters`: JSON Schema of its arguments."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}


class Tool(msgspec.Struct):
    """A tool offered by the caller."""

    function: ToolFunction
    type: Literal["function"] = "function"


class ChatInput(msgspec.Struct):
    """A conversation, and how to continue it. None: the function decides."""

    messages: Annotated[list[ChatMessage], msgspec.Meta(min_length=1, examples=[[{"role": "user", "content": "Hello!"}]])]
    tools: list[Tool] = []
    tool_choice: str | dict[str, Any] | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: list[str] = []
    seed: int | None = None


class FunctionCallDelta(msgspec.Struct):
    """A piece of a call: `name` in its first piece, `arguments` as they are written."""

    name: str | None = None
    arguments: str = ""


class ToolCallDelta(msgspec.Struct):
    """A piece of a tool call. The first piece has an `id`. Pieces without an id continue the last call, or the call
    with their `index`.
    """

    index: int | None = None
    id: str | None = None
    function: FunctionCallDelta | None = None
    type: Literal["function"] = "function"


class ChatDelta(msgspec.Struct):
    """The next piece of an answer, or all of it. `finish_reason` of the last piece: `stop`, `length`, `tool_calls`,
    `content_filter`; by default `tool_calls` if there are some, else `stop`.
    """

    content: str = ""
    tool_calls: list[ToolCallDelta] = []
    finish_reason: str | None = None


class CompletionInput(msgspec.Struct):
    """A text to continue. None: the function decides."""

    prompt: str
    suffix: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    stop: list[str] = []
    seed: int | None = None


class CompletionDelta(msgspec.Struct):
    """The next piece of a text, or all of it."""

    text: str = ""
    finish_reason: str | None = None


class EmbeddingsInput(msgspec.Struct):
    """Texts. `dimensions`: the length of each vector, for models that can shorten them."""

    input: list[str]
    dimensions: int | None = None


class EmbeddingsOutput(msgspec.Struct):
    """A vector for each text, in order."""

    embeddings: list[list[float]]


class ImageInput(msgspec.Struct):
    """What to draw, and how. Sizes in pixels. None: the function decides."""

    prompt: str
    n: int = 1
    width: int | None = None
    height: int | None = None
    quality: str | None = None
    seed: int | None = None


class ImageOutput(msgspec.Struct):
    """Pictures, saved by `ctx.save_bytes` or `ctx.save_file`."""

    images: list[Asset]


class TranscriptionInput(msgspec.Struct):
    """A recording. `language`: ISO 639-1, such as `en`; `prompt`: words that are likely to occur."""

    file: Asset
    language: str | None = None
    prompt: str | None = None
    temperature: float | None = None


class TranscriptionSegment(msgspec.Struct):
    """The words said from `start` to `end`, in seconds."""

    start: float
    end: float
    text: str


class TranscriptionOutput(msgspec.Struct):
    """The words said in a recording. `duration` in seconds."""

    text: str
    language: str | None = None
    duration: float | None = None
    segments: list[TranscriptionSegment] = []


class SpeechInput(msgspec.Struct):
    """A text to read aloud. `response_format`: `mp3`, `wav`, `flac`, `opus`, `aac` or `pcm`; `speed`: 1.0 is normal."""

    input: str
    voice: str = ""
    response_format: str = "wav"
    speed: float = 1.0
    instructions: str | None = None


class SpeechOutput(msgspec.Struct):
    """The recording, saved by `ctx.save_bytes` or `ctx.save_file`."""

    audio: Asset


class Shape(msgspec.Struct, frozen=True):
    """The fields that callers of a task always send, and those that they read."""

    payload: str
    output: str
    structs: tuple[str, str]
    streams: bool = False
    also: tuple[str, ...] = ()  # other fields that their programs always send


SHAPES: dict[str, Shape] = {
    "chat": Shape("messages", "content", ("ChatInput", "ChatDelta"), streams=True),
    "completion": Shape("prompt", "text", ("CompletionInput", "CompletionDelta"), streams=True),
    "embeddings": Shape("input", "embeddings", ("EmbeddingsInput", "EmbeddingsOutput")),
    "image": Shape("prompt", "images", ("ImageInput", "ImageOutput")),
    "transcription": Shape("file", "text", ("TranscriptionInput", "TranscriptionOutput"), streams=True),
    "speech": Shape("input", "audio", ("SpeechInput", "SpeechOutput"), also=("voice",)),
}


def task_problem(task: str, payload: type[msgspec.Struct], output: type[msgspec.Struct], *, incremental: bool) -> tuple[str, str] | None:
    """Why a function with these Structs cannot have its task, and what to write instead; None when it can."""
    shape = SHAPES[task]
    takes, gives = shape.structs
    fix = f"use gen_worker.tasks.{takes} and gen_worker.tasks.{gives}, or Structs with the same field names"
    missing = [
        f"{struct.__name__} has no field {field!r}"
        for struct, field in ((payload, shape.payload), (output, shape.output))
        if field not in struct.__struct_encode_fields__
    ]
    if missing:
        return f"task {task!r}: {' and '.join(missing)}", fix
    lists = [struct.__name__ for struct in (payload, output) if struct.__struct_config__.array_like]
    if lists:
        return f"task {task!r}: {lists[0]} is a list in JSON (array_like=True), but callers expect an object", f"leave it out, or {fix}"
    sent = {shape.payload, *shape.also}
    others = [field.encode_name for field in msgspec.structs.fields(payload) if field.required and field.encode_name not in sent]
    if others:
        return f"task {task!r}: its callers may leave out {', '.join(others)} of {payload.__name__}", f"give {others[0]} a default"
    if incremental and not shape.streams:
        return f"task {task!r}: its callers expect one output, but this function streams", f"return one {gives}"
    return None
