"""What `import gen_worker` costs and provides."""

import importlib
import inspect
import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "grpc",
    "google.protobuf",
    "httpx",
    "httpcore",
    "urllib3",
    "blake3",
    "starlette",
    "uvicorn",
    "asyncio",
    "numpy",
    "click",
    "rich",
)
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
    "Batch",
    "Clamp",
    "ValidationError",
    "ResourceError",
    "CanceledError",
    "WorkerError",
    "CozyHubDownloader",
    "CudaOutOfMemoryError",
    "LoadedPipeline",
    "LoraAdapter",
    "ModelDownloader",
    "ModelManager",
    "ModelNotFoundError",
    "PipelineConfig",
    "PipelineLoader",
    "PipelineLoaderError",
    "model_loader",
    "CozyHubError",
    "CozyHubNoCompatibleArtifactError",
    "CozyHubPublicModelPendingError",
]
DOORS = {
    "gen_worker.injection": ("ModelRef", "ModelRefSource"),
    "gen_worker.errors": ("ValidationError", "RetryableError", "FatalError", "ResourceError", "CanceledError", "AuthError", "WorkerError"),
    "gen_worker.types": ("Asset",),
    "gen_worker.model_cache": ("ModelCache",),
    "gen_worker.payload_constraints": ("Clamp",),
    "gen_worker.wire_protocol": ("WIRE_PROTOCOL_MAJOR", "WIRE_PROTOCOL_MINOR", "wire_protocol_version_string"),
    "gen_worker.decorators": ("worker_function", "worker_websocket", "ResourceRequirements"),
    "gen_worker.worker": ("ActionContext", "RealtimeSocket", "Worker"),
    "gen_worker.model_interface": ("ModelDownloader", "ModelManagementInterface", "ModelManager"),
    "gen_worker.entrypoint": ("main",),
    "gen_worker.testing.mock_orchestrator": ("main",),
    "gen_worker.testing.loopback": ("LoopbackScheduler",),
    "gen_worker.testing.stub_manager": ("StubModelManager",),
    "gen_worker.testing.end_to_end": ("EndToEnd",),
    "gen_worker.pb.worker_scheduler_pb2": ("WorkerSchedulerMessage",),
    "gen_worker.pb.worker_scheduler_pb2_grpc": ("SchedulerWorkerServiceStub", "add_SchedulerWorkerServiceServicer_to_server"),
    "gen_worker.pb.frontend_pb2": ("ExecuteActionRequest",),
    "gen_worker.pb.frontend_pb2_grpc": ("FrontendServiceStub",),
    "gen_worker.client": ("Client", "ClientError", "GatewayError", "RunError", "RunHandle", "RunStream"),
    "gen_worker.discover": ("discover_manifest", "discover_functions"),
}


POSITIONS = {  # as published projects pass them
    "gen_worker.ResourceRequirements": "max_concurrency",
    "gen_worker.Clamp": "min max cast round",
    "gen_worker.ModelRef": "source key ref dtypes",
    "gen_worker.ActionContext": "run_id emitter owner invoker_id timeout_ms file_api_base_url file_api_token materialized_input_urls "
    "local_output_dir resolved_cozy_models_by_id required_models",
    "gen_worker.CozyHubDownloader": "base_url token timeout_seconds",
    "gen_worker.ModelCache": "max_vram_gb vram_safety_margin_gb model_cache_dir",
    "gen_worker.PipelineLoader": "models_dir local_cache_dir max_vram_gb vram_safety_margin_gb cozy_hub_url cozy_hub_token downloader",
    "gen_worker.PipelineConfig": "model_path pipeline_class custom_pipeline dtype device enable_vae_tiling enable_vae_slicing "
    "enable_model_cpu_offload enable_sequential_cpu_offload scheduler_class warmup_steps variant",
    "gen_worker.LoadedPipeline": "pipeline model_id pipeline_class dtype size_gb load_format components",
    "gen_worker.ModelNotFoundError": "model_id path",
    "gen_worker.CudaOutOfMemoryError": "model_id required_gb available_gb",
    "gen_worker.worker.Worker": "scheduler_addr scheduler_addrs user_module_names worker_id worker_jwt use_tls reconnect_delay "
    "max_reconnect_attempts model_manager downloader manifest",
}


@pytest.mark.parametrize("name", POSITIONS)
def test_arguments_by_position(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    parameters = inspect.signature(getattr(importlib.import_module(module), attribute)).parameters.values()
    assert [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD] == POSITIONS[name].split()


# Of ours and of Python's, for what an author's module does not do: ends of runs, types of payloads, near names, JSON.
LATER = ("gen_worker.outcome", "gen_worker.authoring.shapes", "gen_worker.authoring.tasks", "gen_worker.json_keys", "difflib")


def test_nothing_heavy_is_loaded() -> None:
    code = f"import sys, gen_worker; print([name for name in {HEAVY + LATER!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["gen_worker.worker", "gen_worker.testing.pytest_plugin", "gen_worker.entrypoint"])
def test_doors_that_others_load_stay_light(module: str) -> None:
    """Authors import the first, every pytest run of theirs the second; the third has its signal handlers before anything slow."""
    code = f"import sys, {module}; print([name for name in ('torch', 'grpc', 'google.protobuf', 'httpcore', 'starlette') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_the_client_is_light() -> None:
    """Callers' programs start with it: the HTTP library comes with the first client, the worker's side never."""
    heavy = (*HEAVY, "ssl", "http.client", "urllib.request", "gen_worker.http", "gen_worker.execution", "gen_worker.files")
    code = f"import sys, gen_worker.client; print([name for name in {heavy!r} if name in sys.modules])"
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
