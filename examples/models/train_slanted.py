"""Train the second digits checkpoint: a UNet that draws slanted digits, over the first one's VAE and text encoder.

    python train_slanted.py digits-sd digits-sd-slanted [--seconds 90] [--threads 2]

Only the UNet learns. The VAE, text encoder and tokenizer are copied byte for byte, so that two loaded
checkpoints can share them. Data: scikit-learn's 1,797 handwritten digits (8 x 8), sheared to the right.
"""

import argparse
import json
import math
import shutil
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from sklearn.datasets import load_digits

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
SHEAR = 0.3  # horizontal shift per unit of height, in half image widths
UNCONDITIONAL_SHARE = 0.1  # how often the prompt is dropped, for classifier-free guidance


def slanted_digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Images (n, 3, 16, 16) in [-1, 1] and labels (n,), each digit sheared to the right."""
    pixels, labels = load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 8 - 1
    images = F.interpolate(images, size=16, mode="bilinear", align_corners=False)
    shear = torch.tensor([[1.0, SHEAR, 0.0], [0.0, 1.0, 0.0]]).expand(len(images), 2, 3)
    grid = F.affine_grid(shear, list(images.shape), align_corners=False)
    sheared = F.grid_sample(images + 1, grid, align_corners=False) - 1  # outside is black, not grey
    return sheared.repeat(1, 3, 1, 1), torch.tensor(labels)


def train(pipe: StableDiffusionPipeline, seconds: float) -> float:
    """Train `pipe.unet` in place on v-prediction for `seconds`; returns the last loss."""
    images, labels = slanted_digits()
    with torch.no_grad():
        latents = torch.cat([pipe.vae.encode(part).latent_dist.mean for part in images.split(256)])
        latents = latents * pipe.vae.config.scaling_factor
        tokens = pipe.tokenizer([*WORDS, ""], padding="max_length", max_length=8, return_tensors="pt")
        prompts = pipe.text_encoder(tokens.input_ids)[0]
    weights = list(pipe.unet.parameters())
    average = [weight.detach().clone() for weight in weights]
    optimizer = torch.optim.AdamW(weights, 2e-3)
    steps, loss, began = 0, torch.tensor(math.nan), time.perf_counter()
    while (done := (time.perf_counter() - began) / seconds) < 1:
        optimizer.param_groups[0]["lr"] = 2e-3 * max(0.05, 1 - done)
        picked = torch.randint(len(latents), (64,))
        prompt = labels[picked].clone()
        prompt[torch.rand(64) < UNCONDITIONAL_SHARE] = len(WORDS)
        clean, noise = latents[picked], torch.randn_like(latents[picked])
        at = torch.randint(0, pipe.scheduler.config.num_train_timesteps, (64,))
        drawn = pipe.unet(pipe.scheduler.add_noise(clean, noise, at), at, prompts[prompt]).sample
        loss = F.mse_loss(drawn, pipe.scheduler.get_velocity(clean, noise, at))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        steps += 1
        with torch.no_grad():
            torch._foreach_lerp_(average, weights, 1 - min(0.995, steps / (steps + 10)))
    with torch.no_grad():
        for weight, mean in zip(weights, average, strict=True):
            weight.copy_(mean)
    return float(loss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("base", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    pipe = StableDiffusionPipeline.from_pretrained(args.base, local_files_only=True)
    pipe.unet = UNet2DConditionModel.from_config(pipe.unet.config)
    loss = train(pipe, args.seconds)
    pipe.save_pretrained(args.out)
    for shared in ("vae", "text_encoder", "tokenizer"):
        shutil.rmtree(args.out / shared)
        shutil.copytree(args.base / shared, args.out / shared)
    print(json.dumps({"loss": round(loss, 4), "out": str(args.out)}))


if __name__ == "__main__":
    main()
