"""LoRA adapters as models: `style: Annotated[LoraAdapter, ModelRef(ModelRefSource.PAYLOAD, "style")]`."""

import copy
import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gen_worker.authoring.adapter_fit import check_filled, check_pairs, check_placed, wrong_shapes
from gen_worker.authoring.building import BUILDING
from gen_worker.authoring.module_state import ModuleState

_number = itertools.count(1)


class LoraAdapter:
    """The weights of an adapter on the device. `apply` gives a run its own pipeline or model with the adapter; the base
    model stays unchanged for other runs.

    `tensors` are named as in the file, for example `unet.down_blocks.0.attentions.0.proj_in.lora_A.weight`: pairs of
    matrices with shapes (rank, in) and (out, rank), or of convolution kernels, in the file's own dtype, on the model's
    device. All runs share them, so they are read-only. `path`: the file, or the folder that contains it and its
    `adapter_config.json`.
    """

    def __init__(self, tensors: Mapping[str, Any], path: Path) -> None:
        self.path = path
        self._tensors = tensors
        self.size_bytes = int(sum(tensor.nbytes for tensor in tensors.values()))

    def apply(self, model: Any, weight: float = 1.0, *, partial: bool = False) -> Any:
        """A copy of a diffusers pipeline or transformers model with this adapter at this weight, over the same base
        weights.

        Call it again on the result to combine several adapters. Needs the package peft. `ValueError` when the adapter,
        or only some of its weights, do not fit the model. `partial`: ignore weights that belong to no layer of the
        model.
        """
        name = f"adapter_{next(_number)}"
        try:
            check_pairs(self._tensors)
            if hasattr(model, "load_lora_weights"):
                return self._on_pipeline(model, name, weight, partial)
            return self._on_module(model, name, weight, partial)
        except ImportError as exc:
            raise ImportError("applying a LoRA adapter needs the package 'peft'. Add it with: pip install peft") from exc
        except (KeyError, RuntimeError, ValueError) as exc:
            raise ValueError(f"the adapter {self.path.name} does not fit {type(model).__name__}: {exc}") from exc

    def _on_pipeline(self, pipe: Any, name: str, weight: float, partial: bool) -> Any:
        """The library gets copies of all modules, whatever the keys of the file say. Afterwards, modules that it has
        not changed are replaced by the shared ones. If anything fails, only copies were changed.
        """
        view = copy.copy(pipe)
        shared = _modules_of(pipe)
        copies = {part: share_copy(module) for part, module in shared.items()}
        for part, copied in copies.items():
            setattr(view, part, copied)
        held = _adapters_of(copies.values())
        states = {part: ModuleState(copied) for part, copied in copies.items()}
        with BUILDING, self._saying_which_shapes(copies):
            view.load_lora_weights(dict(self._tensors), adapter_name=name)
        if name not in _adapters_of(copies.values()):
            raise ValueError("none of its weights belongs to a part of this pipeline")
        if not partial:
            check_placed(self._tensors, copies, name)
        view.set_adapters([*held, name], [*held.values(), weight])
        for part, state in states.items():
            if state.is_as_before():
                setattr(view, part, shared[part])
        return view

    def _on_module(self, model: Any, name: str, weight: float, partial: bool) -> Any:
        from peft import LoraConfig

        changed = share_copy(model)
        config = LoraConfig.from_pretrained(str(self.path if self.path.is_dir() else self.path.parent))
        held = list(getattr(changed, "peft_config", None) or ())
        with BUILDING, self._saying_which_shapes({"": changed}):
            said = changed.load_adapter(peft_config=config, adapter_state_dict=dict(self._tensors), adapter_name=name)
        # Releases of transformers before 5 return nothing. Adapters applied earlier count as missing here, and are ignored.
        missing = [key for key in getattr(said, "missing_keys", ()) if f".{name}." in key]
        check_filled(self._tensors, missing, getattr(said, "unexpected_keys", ()), partial=partial)
        changed.set_adapter([*held, name])
        for layer in changed.modules():
            if callable(getattr(layer, "set_scale", None)):  # a layer with adapters; it ignores the call when it lacks this one
                layer.set_scale(name, weight)
        return changed.eval()

    @contextmanager
    def _saying_which_shapes(self, modules: Mapping[str, Any]) -> Iterator[None]:
        """Add the shapes to the error. Libraries name every weight, or none ("look at the above report")."""
        try:
            yield
        except (RuntimeError, ValueError) as exc:
            if wrong := wrong_shapes(self._tensors, modules):
                raise ValueError(wrong) from exc
            raise


def share_copy(module: Any) -> Any:
    """A module with the same structure and the same tensors. Changing its structure leaves the original unchanged, and
    its weights take no extra memory.
    """
    shared = {id(tensor): tensor for tensor in itertools.chain(module.parameters(), module.buffers())}
    return copy.deepcopy(module, shared)


def _modules_of(pipe: Any) -> dict[str, Any]:
    import torch

    return {part: module for part, module in pipe.components.items() if isinstance(module, torch.nn.Module)}


def _adapters_of(modules: Iterable[Any]) -> dict[str, float]:
    """Names and weights of the adapters in these modules."""
    found: dict[str, float] = {}
    for module in modules:
        for name, config in (getattr(module, "peft_config", None) or {}).items():
            found.setdefault(name, _weight_of(module, name, config))
    return found


def _weight_of(module: Any, name: str, config: Any) -> float:
    for layer in module.modules():
        scaling = getattr(layer, "scaling", None)
        if isinstance(scaling, dict) and name in scaling:
            return float(scaling[name] * config.r / config.lora_alpha)
    return 1.0
