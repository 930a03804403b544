"""One function, several SDXL checkpoints: the payload names which."""

import io
from typing import Annotated, Any, Literal

import msgspec
import torch
from diffusers import StableDiffusionXLPipeline

from gen_worker import ActionContext, Asset, Clamp, ModelRef, ModelRefSource, ResourceRequirements, worker_function


class Defaults(msgspec.Struct, frozen=True):
    """What a checkpoint is best drawn with."""

    num_inference_steps: int = 30
    guidance_scale: float = 6.0


DEFAULTS = {"base": Defaults(), "juggernaut": Defaults(35, 4.5), "dreamshaper": Defaults(8, 2.0)}


class Prompt(msgspec.Struct):
    """What to draw, and with which checkpoint. Steps and guidance are the checkpoint's own unless they are given."""

    prompt: Annotated[str, msgspec.Meta(min_length=1)]
    model: Literal["base", "juggernaut", "dreamshaper"] = "base"
    negative_prompt: str = ""
    num_inference_steps: Annotated[int, Clamp(1, 100)] | None = None
    guidance_scale: Annotated[float, Clamp(0, 20)] | None = None
    width: Annotated[int, msgspec.Meta(ge=64, le=2048, multiple_of=8)] = 1024
    height: Annotated[int, msgspec.Meta(ge=64, le=2048, multiple_of=8)] = 1024
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0


class Picture(msgspec.Struct):
    """A PNG, and what it was drawn with."""

    image: Asset
    model: str
    num_inference_steps: int
    guidance_scale: float


@worker_function(ResourceRequirements(max_concurrency=1))
def generate(
    ctx: ActionContext,
    pipe: Annotated[StableDiffusionXLPipeline, ModelRef(ModelRefSource.PAYLOAD, "model")],
    payload: Prompt,
) -> Picture:
    """Draw with the checkpoint that the payload names."""
    defaults = DEFAULTS[payload.model]
    steps = payload.num_inference_steps or defaults.num_inference_steps
    guidance = defaults.guidance_scale if payload.guidance_scale is None else payload.guidance_scale

    def on_step_end(pipe: Any, step: int, timestep: int, tensors: dict[str, Any]) -> dict[str, Any]:
        if ctx.is_canceled():
            raise InterruptedError("canceled")
        ctx.progress((step + 1) / steps, stage="draw")
        return tensors

    image = pipe(
        payload.prompt,
        negative_prompt=payload.negative_prompt or None,
        num_inference_steps=steps,
        guidance_scale=guidance,
        width=payload.width,
        height=payload.height,
        generator=torch.Generator().manual_seed(payload.seed),
        callback_on_step_end=on_step_end,
    ).images[0]
    png = io.BytesIO()
    image.save(png, "PNG")
    asset = ctx.save_bytes(f"runs/{ctx.run_id}/outputs/image.png", png.getvalue())
    return Picture(asset, payload.model, steps, guidance)
