"""Checks that all weights of a LoRA file took effect in a model.

Libraries only warn: weights that match no layer of the model are dropped, and when the file has just one of a layer's
two matrices, the other keeps its initial value, zero or random. The result is a different picture, and nobody is told.

The names of files and layers differ (kohya's trainer writes `lora_te1_text_model_encoder_layers_0_mlp_fc1`, the layer
is `text_encoder.encoder.layers.0.mlp.fc1`), and libraries rename in many ways. So this module counts pairs of matrices,
which needs no names. Names are only compared to tell the reader which ones are affected, and are left out when that
comparison does not explain the count.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

# The first matrix of a pair, in files of peft and diffusers, of kohya's trainer, and of diffusers before it used peft.
_FIRST = re.compile(r"lora_(?:embedding_)?A(?=\.|$)|lora_down(?=\.)|(?<=lora\.)down(?=\.)|(?<=lora_linear_layer\.)down(?=\.)")
_SECOND_OF = {"lora_A": "lora_B", "lora_embedding_A": "lora_embedding_B", "lora_down": "lora_up", "down": "up"}
_SECOND = re.compile(r"lora_(?:embedding_)?B(?=\.|$)|lora_up(?=\.)|(?<=lora\.)up(?=\.)|(?<=lora_linear_layer\.)up(?=\.)")
_SHOWN = 3


def check_pairs(names: Iterable[str]) -> None:
    """`ValueError` when a file has one of a layer's two matrices."""
    present = set(names)
    firsts = {name: _FIRST.sub(lambda found: _SECOND_OF[found[0]], name) for name in present if _FIRST.search(name)}
    lonely = [f"{first} has no {second}" for first, second in sorted(firsts.items()) if second not in present]
    lonely += [f"{name} has no counterpart" for name in sorted(present - set(firsts.values())) if _SECOND.search(name)]
    if lonely:
        raise ValueError(f"it is not complete: {_some(lonely)}")


def check_placed(tensors: Mapping[str, Any], modules: Mapping[str, Any], adapter: str) -> None:
    """`ValueError` when pairs of `tensors` have no layer in `modules` (by their names in a pipeline), which have this adapter now."""
    pairs = [name for name in tensors if _FIRST.search(name)]
    layers = {_flat(name): name for name in _layers_with(modules, adapter)}
    lost = len(pairs) - len(_layers_with(modules, adapter))
    if lost <= 0:  # negative when a library splits a fused layer
        return
    without = [name for name in pairs if _layer_of(name, layers) is None]
    raise _not_placed(lost, len(pairs), without if len(without) == lost else [])


def check_filled(tensors: Mapping[str, Any], missing: Collection[str], unexpected: Collection[str], *, partial: bool) -> None:
    """`ValueError` after a library has created layers from an adapter's configuration: some got no weights (they are
    `missing`, and now random), or weights of the file are `unexpected` (allowed with `partial`).
    """
    if unexpected and not partial:
        raise _not_placed(
            len(unexpected) // 2 or 1, sum(bool(_FIRST.search(name)) for name in tensors), list(filter(_FIRST.search, unexpected))
        )
    if missing:
        raise ValueError(f"its adapter_config.json names layers that its weights lack: {_some(sorted(missing))}")


def _not_placed(lost: int, of: int, names: list[str]) -> ValueError:
    which = f": {_some(sorted(names))}" if names else ""
    return ValueError(
        f"{lost} of its {of} pairs of weights belong to no layer of this model{which}. "
        "Choose an adapter made for this model, or leave those out with apply(..., partial=True)"
    )


def wrong_shapes(tensors: Mapping[str, Any], modules: Mapping[str, Any]) -> str:
    """Explains why a library refuses the shapes of a file: the weights whose layer has another width; "" when there are
    none.

    Two parts may have layers with the same name (both text encoders of SDXL do). Then either may be meant.
    """
    widths: dict[str, set[int]] = {}
    for part, module in modules.items():
        for name, layer in module.named_modules():
            if isinstance(width := getattr(layer, "in_features", None), int):
                widths.setdefault(_flat(f"{part}.{name.removesuffix('.base_layer')}"), set()).add(width)
    wrong = []
    for name in filter(_FIRST.search, sorted(tensors)):
        shape = tuple(tensors[name].shape)
        layer = _layer_of(name, widths)
        if layer is not None and len(shape) == 2 and shape[1] not in widths[layer]:
            taken = " or ".join(f"({shape[0]}, {width})" for width in sorted(widths[layer]))
            wrong.append(f"{name} is {shape}, and its layer takes {taken}")
    return _some(wrong) if wrong else ""


def _layers_with(modules: Mapping[str, Any], adapter: str) -> list[str]:
    return [
        f"{part}.{name}"
        for part, module in modules.items()
        for name, layer in module.named_modules()
        if adapter in getattr(layer, "lora_A", ()) or adapter in getattr(layer, "lora_embedding_A", ())
    ]


def _flat(layer: str) -> str:
    """A layer's name within its part, as kohya's trainer writes it. Newer releases of transformers have no `text_model` prefix."""
    return layer.partition(".")[2].removeprefix("text_model.").replace(".", "_")


def _layer_of(name: str, known: Iterable[str]) -> str | None:
    stem = _FIRST.split(name)[0].rstrip("._").removesuffix(".lora").removesuffix("_lora").replace(".processor", "").replace(".", "_")
    return max((layer for layer in known if stem == layer or stem.endswith(f"_{layer}")), key=len, default=None)


def _some(items: list[str]) -> str:
    rest = len(items) - _SHOWN
    return ", ".join(items[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
