"""onnxruntime sessions."""

from pathlib import Path

from gen_worker.errors import FatalError
from gen_worker.residency.loaders.base import Loaded, LoadPlan, LoadRequest, family, folder_bytes, whole


class OnnxLoader:
    """`Annotated[onnxruntime.InferenceSession, ModelRef(...)]`: the folder's .onnx file, on CUDA if the runtime supports it."""

    def accepts(self, request: LoadRequest) -> bool:
        return family(request.annotation) == "onnxruntime" and getattr(request.annotation, "__name__", "") == "InferenceSession"

    def plan(self, request: LoadRequest) -> LoadPlan:
        file = onnx_file(request.path)

        def load() -> Loaded:
            import onnxruntime

            available = onnxruntime.get_available_providers()
            providers = providers_for(request.device().name if "CUDAExecutionProvider" in available else "cpu")
            session = onnxruntime.InferenceSession(str(file), providers=providers)
            return Loaded(session, folder_bytes(request.path, (".onnx", ".onnx_data")), lambda: session)

        return whole(request, folder_bytes(request.path, (".onnx", ".onnx_data")), load)


def providers_for(device: str) -> list[str | tuple[str, dict[str, str]]]:
    """Execution providers for onnxruntime: this GPU, and the CPU for operators it lacks."""
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return ["CPUExecutionProvider"]
    return [("CUDAExecutionProvider", {"device_id": number or "0"}), "CPUExecutionProvider"]


def onnx_file(path: Path) -> Path:
    """The folder's model file: `model.onnx`, or the only .onnx file; `FatalError` names the files found."""
    if path.is_file():
        return path
    found = sorted(path.rglob("*.onnx"))
    plain = [file for file in found if file.name == "model.onnx"]
    if len(found) == 1 or len(plain) == 1:
        return (plain or found)[0]
    names = ", ".join(str(file.relative_to(path)) for file in found[:6]) or "none"
    raise FatalError(f"expected one .onnx file, or one named model.onnx, in {path.name}; found {names}")
