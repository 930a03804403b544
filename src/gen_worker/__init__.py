"""gen-worker: write serverless functions for AI inference.

`import gen_worker` loads the authoring API and nothing heavy: no torch, no gRPC, no HTTP.
"""

from typing import TYPE_CHECKING, Any

from gen_worker.authoring.assets import Asset
from gen_worker.authoring.batch import Batch
from gen_worker.authoring.clamp import Clamp
from gen_worker.authoring.context import ActionContext
from gen_worker.authoring.functions import ResourceRequirements, worker_function, worker_websocket
from gen_worker.authoring.realtime import RealtimeSocket
from gen_worker.errors import (
    AuthError,
    CanceledError,
    CozyHubError,
    CozyHubNoCompatibleArtifactError,
    CozyHubPublicModelPendingError,
    FatalError,
    ResourceError,
    RetryableError,
    ValidationError,
    WorkerError,
)
from gen_worker.injection import ModelRef, ModelRefSource, model_loader

if TYPE_CHECKING:
    from gen_worker.authoring.adapters import LoraAdapter
    from gen_worker.authoring.model_interface import CozyHubDownloader, ModelDownloader, ModelManager
    from gen_worker.model_cache import ModelCache, ModelCacheStats, ModelLocation
    from gen_worker.pipelines import PipelineLoader
    from gen_worker.project.validation import EndpointValidationResult, validate_endpoint
    from gen_worker.residency.pipeline_loader import (
        CudaOutOfMemoryError,
        LoadedPipeline,
        ModelNotFoundError,
        PipelineConfig,
        PipelineLoaderError,
    )

__version__ = "0.2.0"

# Imported on first use, so that an author's module does not pay for them.
_LATER = {
    "CozyHubDownloader": "gen_worker.authoring.model_interface",
    "CudaOutOfMemoryError": "gen_worker.residency.pipeline_loader",
    "EndpointValidationResult": "gen_worker.project.validation",
    "LoadedPipeline": "gen_worker.residency.pipeline_loader",
    "LoraAdapter": "gen_worker.authoring.adapters",
    "ModelCache": "gen_worker.model_cache",
    "ModelCacheStats": "gen_worker.model_cache",
    "ModelDownloader": "gen_worker.authoring.model_interface",
    "ModelLocation": "gen_worker.model_cache",
    "ModelManager": "gen_worker.authoring.model_interface",
    "ModelNotFoundError": "gen_worker.residency.pipeline_loader",
    "PipelineConfig": "gen_worker.residency.pipeline_loader",
    "PipelineLoader": "gen_worker.pipelines",
    "PipelineLoaderError": "gen_worker.residency.pipeline_loader",
    "validate_endpoint": "gen_worker.project.validation",
}

__all__ = [
    "ActionContext",
    "Asset",
    "AuthError",
    "Batch",
    "CanceledError",
    "Clamp",
    "CozyHubDownloader",
    "CozyHubError",
    "CozyHubNoCompatibleArtifactError",
    "CozyHubPublicModelPendingError",
    "CudaOutOfMemoryError",
    "EndpointValidationResult",
    "FatalError",
    "LoadedPipeline",
    "LoraAdapter",
    "ModelCache",
    "ModelCacheStats",
    "ModelDownloader",
    "ModelLocation",
    "ModelManager",
    "ModelNotFoundError",
    "ModelRef",
    "ModelRefSource",
    "PipelineConfig",
    "PipelineLoader",
    "PipelineLoaderError",
    "RealtimeSocket",
    "ResourceError",
    "ResourceRequirements",
    "RetryableError",
    "ValidationError",
    "WorkerError",
    "model_loader",
    "validate_endpoint",
    "worker_function",
    "worker_websocket",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'gen_worker' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LATER[name]), name)
