"""Pipelines of the diffusers library."""

import copy
from typing import Any

from gen_worker.models.loaders.base import Loaded, LoadRequest, family, import_torch, quiet, tensor_bytes, torch_dtype


class DiffusersLoader:
    """Loads a pipeline folder; each run gets a light copy with a scheduler of its own over the shared weights.

    Schedulers keep the state of one draw (timesteps, history), so two runs must never share one.
    """

    def accepts(self, annotation: Any) -> bool:
        return family(annotation) == "diffusers" and callable(getattr(annotation, "from_pretrained", None))

    def load(self, request: LoadRequest) -> Loaded:
        torch = import_torch()
        quiet("diffusers.utils.logging", "transformers.utils.logging")
        dtype = torch_dtype(torch, request.device, request.dtypes)
        pipe = request.annotation.from_pretrained(
            str(request.path),
            **{_dtype_option(): dtype},
            local_files_only=True,
            use_safetensors=True,
            low_cpu_mem_usage=False,
        ).to(request.device)
        if isinstance(pipe, torch.nn.Module):
            return Loaded(pipe, tensor_bytes(pipe), lambda: pipe)
        pipe.set_progress_bar_config(disable=True)  # progress is an event here, not a bar on the worker's stderr
        modules = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
        return Loaded(pipe, sum(map(tensor_bytes, modules)), lambda: per_run_view(pipe))


def _dtype_option() -> str:
    """`dtype` since the library deprecated `torch_dtype`."""
    from diffusers.utils import deprecation_utils

    return "dtype" if hasattr(deprecation_utils, "_TORCH_DTYPE_DEPRECATION_MESSAGE") else "torch_dtype"


def per_run_view(pipe: Any) -> Any:
    """A pipeline for one run: the same components, a fresh scheduler."""
    view = copy.copy(pipe)
    for name in ("scheduler", "low_res_scheduler", "prior_scheduler"):
        scheduler = getattr(pipe, name, None)
        if scheduler is not None:
            setattr(view, name, type(scheduler).from_config(scheduler.config))
    return view
