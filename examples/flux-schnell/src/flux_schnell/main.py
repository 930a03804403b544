"""Pictures in four steps by FLUX.1 schnell."""

import io
from typing import Annotated, Any

import msgspec
import torch
from diffusers import FluxPipeline

from gen_worker import ActionContext, Asset, Clamp, ModelRef, ModelRefSource, ResourceRequirements, worker_function


class Prompt(msgspec.Struct):
    """What to draw. Sides are in pixels, and multiples of 16."""

    prompt: Annotated[str, msgspec.Meta(min_length=1)]
    num_inference_steps: Annotated[int, Clamp(1, 8)] = 4
    width: Annotated[int, msgspec.Meta(ge=16, le=2048, multiple_of=16)] = 1024
    height: Annotated[int, msgspec.Meta(ge=16, le=2048, multiple_of=16)] = 1024
    num_images: Annotated[int, msgspec.Meta(ge=1, le=4)] = 1
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0


class Pictures(msgspec.Struct):
    """PNGs."""

    images: list[Asset]


@worker_function(ResourceRequirements(max_concurrency=1))
def generate(
    ctx: ActionContext,
    pipe: Annotated[FluxPipeline, ModelRef(ModelRefSource.FIXED, "flux")],
    payload: Prompt,
) -> Pictures:
    """Draw one or several pictures of a prompt."""

    def on_step_end(pipe: Any, step: int, timestep: int, tensors: dict[str, Any]) -> dict[str, Any]:
        if ctx.is_canceled():
            raise InterruptedError("canceled")
        ctx.progress((step + 1) / payload.num_inference_steps, stage="draw")
        return tensors

    drawn = pipe(
        payload.prompt,
        num_inference_steps=payload.num_inference_steps,
        guidance_scale=0.0,  # schnell was distilled without guidance
        max_sequence_length=256,
        width=payload.width,
        height=payload.height,
        num_images_per_prompt=payload.num_images,
        generator=torch.Generator().manual_seed(payload.seed),
        callback_on_step_end=on_step_end,
    ).images
    return Pictures([save(ctx, image, number) for number, image in enumerate(drawn)])


def save(ctx: ActionContext, image: Any, number: int) -> Asset:
    """A picture as an output of this run."""
    png = io.BytesIO()
    image.save(png, "PNG")
    return ctx.save_bytes(f"runs/{ctx.run_id}/outputs/image-{number}.png", png.getvalue())
