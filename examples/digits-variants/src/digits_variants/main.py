"""One function, two checkpoints: the caller picks the handwriting."""

import io
from typing import Annotated

import msgspec
import torch
from diffusers import DiffusionPipeline
from PIL import Image

from gen_worker import ActionContext, Asset, Clamp, ModelRef, ModelRefSource, worker_function


class Prompt(msgspec.Struct):
    """What to draw, and in which hand."""

    prompt: Annotated[str, msgspec.Meta(description="The digit to draw, in words", examples=["seven"])]
    model: Annotated[str, msgspec.Meta(description="upright or slanted", examples=["slanted"])] = "upright"
    num_inference_steps: Annotated[int, Clamp(1, 50)] = 20
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0


class Drawing(msgspec.Struct):
    image: Asset
    model: str


@worker_function()
def draw(
    ctx: ActionContext,
    payload: Prompt,
    pipe: Annotated[DiffusionPipeline, ModelRef(ModelRefSource.PAYLOAD, "model")],
) -> Drawing:
    """Draw the digit with the checkpoint that the payload names."""
    drawn = pipe(
        payload.prompt,
        height=16,
        width=16,
        num_inference_steps=payload.num_inference_steps,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(payload.seed),
    ).images[0]
    png = io.BytesIO()
    drawn.resize((256, 256), Image.Resampling.BICUBIC).save(png, "PNG")
    return Drawing(ctx.save_bytes(f"runs/{ctx.run_id}/outputs/digit.png", png.getvalue()), payload.model)
