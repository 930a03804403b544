"""The smallest endpoint: text in, text out."""

import msgspec
from gen_worker import ActionContext, ValidationError, worker_function


class Input(msgspec.Struct):
    prompt: str


class Output(msgspec.Struct):
    text: str


@worker_function()
def generate(ctx: ActionContext, payload: Input) -> Output:
    """Greet whoever the prompt names."""
    if not payload.prompt.strip():
        raise ValidationError("prompt is empty; expected a name")
    return Output(text=f"Hello, {payload.prompt}!")
