"""LoRA adapters: safetensors on the device, counted by the ledger like any model."""

from typing import Any

from gen_worker.authoring.adapters import LoraAdapter
from gen_worker.errors import FatalError
from gen_worker.residency.loaders.base import LoadControl, Loaded, LoadPlan, LoadRequest, PartPlan, stamp_of
from gen_worker.residency.loaders.weights import find_weights, identity, load_tensors, weights_in
from gen_worker.sources.weight_files import ADAPTER_STEMS


class LoraLoader:
    """`Annotated[LoraAdapter, ModelRef(...)]`."""

    def accepts(self, request: LoadRequest) -> bool:
        return request.annotation is LoraAdapter

    def plan(self, request: LoadRequest) -> LoadPlan:
        folder = request.path if request.path.is_dir() else request.path.parent
        files = find_weights(folder, request.dtypes, ADAPTER_STEMS) if request.path.is_dir() else weights_in(request.path)
        if not files:
            raise FatalError(f"{folder.name} has no .safetensors; expected a LoRA adapter such as pytorch_lora_weights.safetensors")
        device = request.device()
        size_bytes = sum(file.image.size_bytes for file in files)

        def load(control: LoadControl) -> tuple[Any, int]:
            adapter = LoraAdapter(load_tensors(files, device, control), request.path)
            return adapter, adapter.size_bytes

        part = PartPlan(identity(folder, files, request.digests, "", f"lora|{device.name}"), size_bytes, load)

        def assemble(parts: Any) -> Loaded:
            adapter = parts[part.part_id]
            return Loaded(adapter, adapter.size_bytes, lambda: adapter)

        return LoadPlan((part,), assemble, stamp=stamp_of(folder))
