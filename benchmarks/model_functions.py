"""A function whose caller chooses the model."""

from typing import Annotated

import msgspec

from gen_worker import ActionContext, ModelRef, ModelRefSource, worker_function


class In(msgspec.Struct):
    model: str


class Engine:
    """Stands for any loaded thing."""

    @classmethod
    def from_pretrained(cls, path: str) -> "Engine":
        return cls()


@worker_function()
def use(ctx: ActionContext, payload: In, engine: Annotated[Engine, ModelRef(ModelRefSource.PAYLOAD, "model")]) -> In:
    return payload
