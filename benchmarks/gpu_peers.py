"""Other ways to have the weights of safetensors files on a device, each if it is installed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file


def peers(kind: Any, folder: Path, files: list[Path], device: str, dtype: Any) -> dict[str, Callable[[], Any]]:
    """What each does, by its name; a call raises ImportError where it is not installed. `device` has an index if it is a GPU."""

    def library() -> Any:
        from gen_worker.residency.loaders.diffusers import _dtype_option

        return kind.from_pretrained(folder, **{_dtype_option(): dtype}).to(device)

    def load_files() -> Any:
        return [load_file(path, device=device) for path in files]

    def fastsafetensors() -> Any:
        from fastsafetensors import SafeTensorsFileLoader, SingleGroup

        loader = SafeTensorsFileLoader(SingleGroup(), device, nogds=True)
        loader.add_filenames({0: [str(path) for path in files]})
        buffers = loader.copy_files_to_device()
        tensors = {name: buffers.get_tensor(name).clone() for name in buffers.key_to_rank_lidx}
        buffers.close()
        loader.close()
        return tensors

    def flashpack() -> Any:
        from flashpack import assign_from_file, pack_to_file

        packed = folder / "model.flashpack"
        if not packed.exists():
            pack_to_file(kind.from_pretrained(folder), str(packed), dtype)
        with torch.device("meta"):
            model = kind.from_config(kind.load_config(str(folder)))
        assign_from_file(model, str(packed), device=device)
        return model

    def instanttensor() -> Any:
        from instanttensor import safe_open

        with safe_open([str(path) for path in files], framework="pt", device=torch.device(device).index or 0) as opened:
            return dict(opened.tensors())

    def runai() -> Any:
        from runai_model_streamer import SafetensorsStreamer

        with SafetensorsStreamer() as streamer:
            streamer.stream_files([str(path) for path in files])
            return {name: tensor.to(device, copy=True) for name, tensor in streamer.get_tensors()}

    return {
        "from_pretrained().to()": library,
        "safetensors load_file": load_files,
        "fastsafetensors": fastsafetensors,
        "flashpack": flashpack,
        "InstantTensor": instanttensor,
        "runai-model-streamer": runai,
    }
