"""Draw a handwritten digit from its English name, with a real (and tiny) Stable Diffusion pipeline."""

import base64
import io
from typing import Annotated, Any

import msgspec
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from gen_worker import ActionContext, Asset, Clamp, ModelRef, ModelRefSource, ResourceRequirements, worker_function


class Prompt(msgspec.Struct):
    """What to draw."""

    prompt: Annotated[str, msgspec.Meta(description="The digit to draw, in words", examples=["seven"])]
    num_inference_steps: Annotated[int, Clamp(1, 50)] = 20
    guidance_scale: Annotated[float, Clamp(0, 10)] = 3.0
    seed: Annotated[int, msgspec.Meta(ge=0, description="The same seed draws the same picture")] = 0
    size: Annotated[int, Clamp(16, 512)] = 256


class Drawing(msgspec.Struct):
    """The picture, saved as a PNG."""

    image: Asset
    prompt: str


def preview_of(pipe: StableDiffusionPipeline, latents: torch.Tensor, size: int) -> dict[str, str]:
    """The picture as it is now: a small JPEG as a `data:` URL. A large autoencoder takes long; `AutoencoderTiny` does not."""
    with torch.no_grad():
        now = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    jpeg = io.BytesIO()
    pipe.image_processor.postprocess(now)[0].resize((size, size), Image.Resampling.BICUBIC).save(jpeg, "JPEG")
    return {"image": f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}"}


@worker_function(ResourceRequirements(max_concurrency=2))
def generate(
    ctx: ActionContext,
    pipe: Annotated[StableDiffusionPipeline, ModelRef(ModelRefSource.FIXED, "digits")],
    payload: Prompt,
) -> Drawing:
    """Draw the digit that the prompt names."""

    def on_step_end(pipe: Any, step: int, timestep: int, tensors: dict[str, Any]) -> dict[str, Any]:
        if ctx.is_canceled():
            raise InterruptedError("canceled")
        ctx.progress((step + 1) / payload.num_inference_steps, stage="draw")
        if step % 4 == 3 and step + 1 < payload.num_inference_steps:
            ctx.emit("preview", {**preview_of(pipe, tensors["latents"], min(payload.size, 128)), "step": step + 1})
        return tensors

    drawn = pipe(
        payload.prompt,
        height=16,
        width=16,
        num_inference_steps=payload.num_inference_steps,
        guidance_scale=payload.guidance_scale,
        generator=torch.Generator().manual_seed(payload.seed),
        callback_on_step_end=on_step_end,
    ).images[0]
    png = io.BytesIO()
    drawn.resize((payload.size, payload.size), Image.Resampling.BICUBIC).save(png, "PNG")
    return Drawing(ctx.save_bytes(f"runs/{ctx.run_id}/outputs/digit.png", png.getvalue()), payload.prompt)
