"""A whole hot run of a pipeline over the dev runner, against the same pipeline by hand in a process of its own, in turns."""

import argparse
import hashlib
import http.client
import io
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ENDPOINT = ROOT / "examples/sd15"


def make_pipeline(folder: Path, device: str, *, tiny: bool) -> Path:
    """A Stable Diffusion 1.5 of random weights and real size; the digits pipeline if it is to be tiny."""
    digits = ROOT / "examples/models/digits-sd"
    if tiny or folder.exists():
        return digits if tiny else folder
    import diffusers
    import torch
    import transformers

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float16)
    torch.manual_seed(0)
    with torch.device(device):
        unet = diffusers.UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
        vae = diffusers.AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, **blocks)
        text = transformers.CLIPTextModel(
            transformers.CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12, num_hidden_layers=12)
        )
    torch.set_default_dtype(before)
    diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=transformers.AutoTokenizer.from_pretrained(digits / "tokenizer"),
        unet=unet,
        scheduler=diffusers.PNDMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).to("cpu").save_pretrained(folder)
    return folder


class ByHand:
    """The process without us."""

    def __init__(self, folder: Path, device: str, options: dict[str, Any]) -> None:
        command = [sys.executable, __file__, "--by-hand", str(folder), "--device", device, "--options", json.dumps(options)]
        began = time.perf_counter()
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.draw()
        self.first_picture_s = time.perf_counter() - began

    def draw(self) -> tuple[float, str]:
        """Seconds, and the digest of the PNG's bytes."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        seconds, digest = self._process.stdout.readline().split()
        return float(seconds), digest

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


class OverTheRunner:
    """The dev runner with the example's project, and the seconds until its first picture."""

    def __init__(self, folder: Path, device: str, options: dict[str, Any], scratch: Path) -> None:
        self._payload = json.dumps({"payload": options}).encode()
        self._log = scratch / "runner.log"
        command = [sys.executable, "-m", "gen_worker.testing.http_runner", "--listen", "127.0.0.1:0", "--outputs", str(scratch / "out")]
        models = ["--model", f"sd15={folder}", "--model", f"sd15_fp8={folder}"]
        paths = [str(Path(path).resolve()) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]  # it starts elsewhere
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "WORKER_DEVICE": device,
            "TENSORHUB_CACHE_DIR": str(scratch / "cache"),
            "WORKER_LOCAL_MODEL_CACHE_DIR": "",
        }
        began = time.perf_counter()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([*command, *models], cwd=ENDPOINT, env=env, stdout=log, stderr=log)
        self._address = self._wait()
        self.ready_s = time.perf_counter() - began
        self.draw()
        self.first_picture_s = time.perf_counter() - began

    def draw(self) -> tuple[float, str]:
        connection = http.client.HTTPConnection(self._address, timeout=120)
        began = time.perf_counter()
        connection.request("POST", "/v1/run/generate", self._payload, {"content-type": "application/json", "accept": "image/png"})
        answer = connection.getresponse()
        data = answer.read()
        seconds = time.perf_counter() - began
        connection.close()
        if answer.status != 200:
            raise RuntimeError(data.decode(errors="replace")[:500])
        return seconds, hashlib.sha256(data).hexdigest()

    def _wait(self) -> str:
        while not (found := re.search(r"listening on http://(\S+)", self._log.read_text())):
            if self._process.poll() is not None:
                raise RuntimeError(self._log.read_text()[-2000:])
            time.sleep(0.002)
        return found[1]

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)


def compare(folder: Path, device: str, scratch: Path, *, steps: int, edge: int, rounds: int) -> dict[str, float | bool]:
    """Both in turns. Seconds are medians."""
    options = {"prompt": "seven", "num_inference_steps": steps, "width": edge, "height": edge, "seed": 3}
    ours = OverTheRunner(folder, device, options, scratch)
    hand = ByHand(folder, device, options)
    try:
        turns = [(ours.draw(), hand.draw()) for _ in range(rounds)]
    finally:
        ours.close()
        hand.close()
    mine = statistics.median(turn[0][0] for turn in turns)
    theirs = statistics.median(turn[1][0] for turn in turns)
    return {
        "over_the_runner_s": mine,
        "by_hand_s": theirs,
        "ratio": statistics.median(turn[0][0] / turn[1][0] for turn in turns),
        "same_bits": len({digest for turn in turns for _, digest in turn}) == 1,
        "ready_s": ours.ready_s,
        "first_picture_s": ours.first_picture_s,
        "first_picture_by_hand_s": hand.first_picture_s,
    }


def by_hand(folder: Path, device: str, options: dict[str, Any]) -> None:
    """Draw as the example's function does, with nothing of ours, whenever a line comes."""
    import diffusers
    import torch

    dtype = torch.float16 if device.startswith("cuda") else torch.float32
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder, torch_dtype=dtype).to(device)
    pipe.set_progress_bar_config(disable=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        image = pipe(
            options["prompt"],
            num_inference_steps=options["num_inference_steps"],
            guidance_scale=7.5,
            width=options["width"],
            height=options["height"],
            generator=torch.Generator().manual_seed(options["seed"]),
            callback_on_step_end=lambda pipe, step, timestep, tensors: tensors,
        ).images[0]
        png = io.BytesIO()
        image.save(png, "PNG")
        print(time.perf_counter() - began, hashlib.sha256(png.getvalue()).hexdigest(), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--by-hand", type=Path, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--options", type=json.loads, required=True)
    options = parser.parse_args()
    by_hand(options.by_hand, options.device, options.options)


if __name__ == "__main__":
    main()
