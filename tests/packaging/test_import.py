"""What `import gen_worker` costs and offers."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "grpc", "google.protobuf", "httpx", "httpcore", "starlette", "uvicorn", "asyncio", "numpy", "click", "rich")
EXPORTS = [
    "worker_function",
    "worker_websocket",
    "ResourceRequirements",
    "ModelRef",
    "ModelRefSource",
    "ActionContext",
    "RealtimeSocket",
    "AuthError",
    "RetryableError",
    "FatalError",
    "Asset",
    "EndpointValidationResult",
    "validate_endpoint",
    "ModelCache",
    "ModelCacheStats",
    "ModelLocation",
    "Clamp",
    "ValidationError",
    "ResourceError",
    "CanceledError",
    "WorkerError",
]
DOORS = {
    "gen_worker.injection": ("ModelRef", "ModelRefSource"),
    "gen_worker.errors": ("ValidationError", "RetryableError", "FatalError", "ResourceError", "CanceledError", "AuthError", "WorkerError"),
    "gen_worker.types": ("Asset",),
    "gen_worker.model_cache": ("ModelCache",),
    "gen_worker.payload_constraints": ("Clamp",),
    "gen_worker.wire_protocol": ("WIRE_PROTOCOL_MAJOR", "WIRE_PROTOCOL_MINOR", "wire_protocol_version_string"),
    "gen_worker.decorators": ("worker_function", "worker_websocket", "ResourceRequirements"),
    "gen_worker.worker": ("ActionContext", "RealtimeSocket"),
    "gen_worker.discover": ("discover_manifest", "discover_functions"),
}


def test_nothing_heavy_is_loaded() -> None:
    code = f"import sys, gen_worker; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("name", EXPORTS)
def test_exports(name: str) -> None:
    import gen_worker

    assert getattr(gen_worker, name).__name__
    assert name in gen_worker.__all__


@pytest.mark.parametrize("module", DOORS)
def test_doors(module: str) -> None:
    import importlib

    found = importlib.import_module(module)
    assert all(hasattr(found, name) for name in DOORS[module])


def test_an_unknown_name_is_an_attribute_error() -> None:
    import gen_worker

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = gen_worker.nothing
