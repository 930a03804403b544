"""Functions that declare a task, for the project of `platform_process`: stand-ins for models."""

from openai_project import MEDIA

TASK_FUNCTIONS = (
    """
from gen_worker import tasks

@worker_function(task="chat")
def talk(ctx: ActionContext, payload: tasks.ChatInput) -> Iterator[tasks.ChatDelta]:
    for word in payload.messages[-1].text.split(" ") if payload.messages else ():
        if word == "wait":
            ctx.done().wait(60)
            if ctx.is_canceled(): raise InterruptedError("canceled")
        ctx.report_usage(output_tokens=1)
        yield tasks.ChatDelta(word)
    ctx.report_usage(input_tokens=len(payload.messages))
"""
    + MEDIA
)
