"""Pictures by Stable Diffusion 1.5, in 16 or 8 bits."""

import io
from typing import Annotated, Any

import msgspec
import torch
from diffusers import StableDiffusionPipeline

from gen_worker import ActionContext, Asset, Clamp, ModelRef, ModelRefSource, ResourceRequirements, worker_function


class Prompt(msgspec.Struct):
    """What to draw. Sides are in pixels, and multiples of 8."""

    prompt: Annotated[str, msgspec.Meta(min_length=1, description="What the picture shows")]
    negative_prompt: str = ""
    num_inference_steps: Annotated[int, Clamp(1, 100)] = 25
    guidance_scale: Annotated[float, Clamp(0, 20)] = 7.5
    width: Annotated[int, msgspec.Meta(ge=64, le=1024, multiple_of=8)] = 512
    height: Annotated[int, msgspec.Meta(ge=64, le=1024, multiple_of=8)] = 512
    seed: Annotated[int, msgspec.Meta(ge=0, description="The same seed draws the same picture")] = 0


class Picture(msgspec.Struct):
    """A PNG."""

    image: Asset


@worker_function(ResourceRequirements(max_concurrency=1))
def generate(
    ctx: ActionContext,
    pipe: Annotated[StableDiffusionPipeline, ModelRef(ModelRefSource.FIXED, "sd15")],
    payload: Prompt,
) -> Picture:
    """Draw with 16-bit weights."""
    return draw(ctx, pipe, payload)


@worker_function(ResourceRequirements(max_concurrency=1))
def generate_fp8(
    ctx: ActionContext,
    pipe: Annotated[StableDiffusionPipeline, ModelRef(ModelRefSource.FIXED, "sd15_fp8")],
    payload: Prompt,
) -> Picture:
    """Draw with a UNet kept in 8 bits: less memory, nearly the same picture."""
    return draw(ctx, pipe, payload)


def draw(ctx: ActionContext, pipe: Any, payload: Prompt) -> Picture:
    """One picture, saved as an output of this run."""

    def on_step_end(pipe: Any, step: int, timestep: int, tensors: dict[str, Any]) -> dict[str, Any]:
        if ctx.is_canceled():
            raise InterruptedError("canceled")
        ctx.progress((step + 1) / payload.num_inference_steps, stage="draw")
        return tensors

    image = pipe(
        payload.prompt,
        negative_prompt=payload.negative_prompt or None,
        num_inference_steps=payload.num_inference_steps,
        guidance_scale=payload.guidance_scale,
        width=payload.width,
        height=payload.height,
        generator=torch.Generator().manual_seed(payload.seed),
        callback_on_step_end=on_step_end,
    ).images[0]
    png = io.BytesIO()
    image.save(png, "PNG")
    return Picture(ctx.save_bytes(f"runs/{ctx.run_id}/outputs/image.png", png.getvalue()))
