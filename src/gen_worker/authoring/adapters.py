"""LoRA adapters as models of their own: `style: Annotated[LoraAdapter, ModelRef(ModelRefSource.PAYLOAD, "style")]`."""

import copy
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_number = itertools.count(1)


class LoraAdapter:
    """The weights of an adapter on the device. `apply` gives a run its own pipeline or model with it; the base stays as it is for
    everybody else."""

    def __init__(self, tensors: Mapping[str, Any], path: Path) -> None:
        self.path = path
        self._tensors = tensors
        self.size_bytes = int(sum(tensor.nbytes for tensor in tensors.values()))

    def apply(self, model: Any, weight: float = 1.0) -> Any:
        """A copy of a diffusers pipeline or transformers model that has the adapter with this weight, over the same base weights.

        May be called again on the result, for several adapters at once. Needs the package peft; `ValueError` when the adapter does not
        fit the model.
        """
        name = f"adapter_{next(_number)}"
        try:
            if hasattr(model, "load_lora_weights"):
                return self._on_pipeline(model, name, weight)
            return self._on_module(model, name, weight)
        except ImportError as exc:
            raise ImportError("applying a LoRA adapter needs the package 'peft'. Add it with: pip install peft") from exc
        except (KeyError, RuntimeError, ValueError) as exc:
            raise ValueError(f"the adapter {self.path.name} does not fit {type(model).__name__}: {exc}") from exc

    def _on_pipeline(self, pipe: Any, name: str, weight: float) -> Any:
        import torch

        view = copy.copy(pipe)
        parts = {part for part, module in pipe.components.items() if isinstance(module, torch.nn.Module)}
        touched = {key.partition(".")[0] for key in self._tensors} & parts
        for part in touched or {name for name in ("unet", "transformer") if name in parts}:
            setattr(view, part, share_copy(getattr(pipe, part)))
        held = _adapters_of(view)
        view.load_lora_weights(dict(self._tensors), adapter_name=name)
        if name not in _adapters_of(view):
            raise ValueError("none of its weights belongs to a part of this pipeline")
        view.set_adapters([*held, name], [*held.values(), weight])
        return view

    def _on_module(self, model: Any, name: str, weight: float) -> Any:
        from peft import LoraConfig

        changed = share_copy(model)
        config = LoraConfig.from_pretrained(str(self.path if self.path.is_dir() else self.path.parent))
        config.lora_alpha = config.lora_alpha * weight
        changed.load_adapter(peft_config=config, adapter_state_dict=dict(self._tensors), adapter_name=name)
        return changed.eval()


def share_copy(module: Any) -> Any:
    """A module of the same structure with the same tensors: changing its structure leaves the original alone, its weights take no
    memory."""
    shared = {id(tensor): tensor for tensor in itertools.chain(module.parameters(), module.buffers())}
    return copy.deepcopy(module, shared)


def _adapters_of(pipe: Any) -> dict[str, float]:
    """Names and weights of the adapters that a pipeline has."""
    found: dict[str, float] = {}
    for part in ("unet", "transformer", "text_encoder"):
        module = getattr(pipe, part, None)
        for name, config in (getattr(module, "peft_config", None) or {}).items():
            found.setdefault(name, _weight_of(module, name, config))
    return found


def _weight_of(module: Any, name: str, config: Any) -> float:
    for layer in module.modules():
        scaling = getattr(layer, "scaling", None)
        if isinstance(scaling, dict) and name in scaling:
            return float(scaling[name] * config.r / config.lora_alpha)
    return 1.0
