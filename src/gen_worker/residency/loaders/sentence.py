"""Models of sentence-transformers: a transformers encoder followed by small modules.

The fast path loads the encoder. Then the library builds its own object around it, with everything else it does
(prompts, pooling, lengths, tokenizer). At the point where it would load the encoder, it is given ours. If it asks for
another class than the loaded one, it loads that itself.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from gen_worker.authoring.building import BUILDING
from gen_worker.project.injectable import is_sentence_encoder
from gen_worker.residency.loaders.assembled import Assembled
from gen_worker.residency.loaders.base import (
    LoadControl,
    Loaded,
    LoadPlan,
    LoadRequest,
    PartPlan,
    folder_bytes,
    import_torch,
    quiet,
    stamp_of,
    tensor_bytes,
    torch_dtype,
    whole,
)
from gen_worker.residency.loaders.pieces import index_of
from gen_worker.residency.loaders.tokenizers import share
from gen_worker.residency.loaders.transformers import TransformersLoader, check_is_model, config_of, dtype_option
from gen_worker.residency.loaders.weights import WeightFile, find_weights, identity, loaded_bytes
from gen_worker.sources.gather import read_object
from gen_worker.sources.sentence_plan import MODULES, modules_of

_BY_TASK = {
    "feature-extraction": "AutoModel",
    "sequence-classification": "AutoModelForSequenceClassification",
    "fill-mask": "AutoModelForMaskedLM",
    "text-generation": "AutoModelForCausalLM",
}
_BY_KIND = {"CrossEncoder": "sequence-classification", "SparseEncoder": "fill-mask"}
_ENCODERS_OF = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}


class SentenceLoader:
    """The encoder by `TransformersLoader`, the rest by the library."""

    def accepts(self, request: LoadRequest) -> bool:
        return is_sentence_encoder(request.annotation)

    def plan(self, request: LoadRequest) -> LoadPlan:
        torch = import_torch()
        quiet("transformers.utils.logging")
        device = request.device().name
        dtype = torch_dtype(torch, device, request.dtypes)
        folder = encoder_folder(request.path)
        if folder is None:
            return whole(request, folder_bytes(request.path), lambda: _by_library(request, device, dtype))
        check_is_model(folder, request.annotation)
        encoder = msgspec.structs.replace(request, annotation=_encoder_class(request, folder), path=folder)
        plan = TransformersLoader().plan(encoder, without_cache)
        kind = request.annotation
        behind = _behind(request, folder, dtype)
        form_id = f"{request.path}|{kind.__module__}.{kind.__qualname__}|{'|'.join(part.part_id for part in plan.parts)}"

        def assemble(parts: Mapping[str, Any]) -> Loaded:
            model = plan.assemble(parts).model
            kept = request.skeletons.assembled(form_id) if request.skeletons is not None else None
            if kept is None or not kept.holds(model):
                with BUILDING, instead_of_loading(model):
                    kept = _Kept(_made(request, device, dtype), model)
                # modules with weights of their own would keep that memory after an eviction
                if request.skeletons is not None and not behind:
                    request.skeletons.keep_assembled(form_id, kept)
            return Loaded(kept.pipe, kept.size_bytes, kept.views)

        return LoadPlan((*plan.parts, *behind), assemble, stamp=stamp_of(request.path))


class _Kept(Assembled):
    """The library's object, itself a module, around its encoder."""

    def __init__(self, made: Any, encoder: Any) -> None:
        super().__init__(made, lambda: made)
        self._encoder = encoder
        self._parts = list(made.modules())
        self.remember(tensor_bytes(made))

    def holds(self, encoder: Any) -> bool:
        now = list(self.pipe.modules())
        same = len(now) == len(self._parts) and all(part is before for part, before in zip(now, self._parts, strict=True))
        return same and any(part is encoder for part in now) and self.is_of({})


def without_cache(config: Any) -> None:
    """Turn off the key-value cache, as the library does: an encoder that could also generate would otherwise cache for
    tokens that never come.
    """
    if hasattr(config, "use_cache"):
        config.use_cache = False


def encoder_folder(path: Path) -> Path | None:
    """The encoder's folder; None for models without a transformers encoder, such as static embeddings."""
    if not (path / MODULES).is_file():
        return path
    (name, kind), *_ = modules_of(index_of(path / MODULES))
    return path / name if kind in ("Transformer", "MLMTransformer") and (path / name / "config.json").is_file() else None


def _encoder_class(request: LoadRequest, folder: Path) -> Any:
    import transformers

    own = folder / "sentence_bert_config.json"
    task = read_object(own).get("transformer_task") if own.is_file() else None
    kinds = (_BY_KIND[base.__name__] for base in request.annotation.__mro__ if base.__name__ in _BY_KIND)
    name = _BY_TASK.get(task if isinstance(task, str) else next(kinds, ""), "AutoModel")
    if name == "AutoModel":
        name = _ENCODERS_OF.get(config_of(folder).model_type, name)
    return getattr(transformers, name)


def _behind(request: LoadRequest, encoder: Path, dtype: Any) -> tuple[PartPlan, ...]:
    """The weights of the modules behind the encoder, such as `2_Dense`. The library loads them; the ledger needs their size."""
    files: list[WeightFile] = []
    if (request.path / MODULES).is_file():
        folders = [request.path / name for name, _ in modules_of(index_of(request.path / MODULES))]
        files = [file for folder in folders if folder != encoder and folder.is_dir() for file in find_weights(folder, request.dtypes)]
    if not files:
        return ()
    size_bytes = loaded_bytes(files, dtype.itemsize)

    def load(control: LoadControl) -> tuple[Any, int]:
        control.on_bytes(size_bytes)
        return object(), size_bytes

    form = f"behind|{request.device().name}|{dtype}"
    return (PartPlan(identity(request.path, files, {}, "", form), size_bytes, load),)


@contextmanager
def instead_of_loading(model: Any) -> Iterator[None]:
    """In this thread, `from_pretrained` of this model's class returns this model."""
    from transformers import PreTrainedModel

    thread = threading.get_ident()
    theirs = vars(PreTrainedModel)["from_pretrained"]

    def from_pretrained(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() == thread and cls is type(model):
            return model
        return theirs.__get__(None, cls)(*args, **kwargs)

    PreTrainedModel.from_pretrained = classmethod(from_pretrained)
    try:
        yield
    finally:
        PreTrainedModel.from_pretrained = theirs


def _made(request: LoadRequest, device: str, dtype: Any) -> Any:
    made = request.annotation(
        str(request.path),
        device=device,
        local_files_only=True,
        trust_remote_code=False,
        model_kwargs={dtype_option(): dtype, "use_safetensors": True},
    )
    made.requires_grad_(False)
    share([made])
    return made.eval()


def _by_library(request: LoadRequest, device: str, dtype: Any) -> Loaded:
    with BUILDING:
        made = _made(request, device, dtype)
    return Loaded(made, tensor_bytes(made), lambda: made)
