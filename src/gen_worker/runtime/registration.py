"""Describes functions, hardware and cache for a worker's registration and heartbeats."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from gen_worker.authoring.signature import FunctionSpec
from gen_worker.content.measured import LOAD, NET
from gen_worker.project.schemas import compact_json, json_schema
from gen_worker.residency.accounting import ModelCache
from gen_worker.residency.forms import model_of
from gen_worker.residency.hardware import GpuWatch, Hardware
from gen_worker.residency.manager import LoadedModels
from gen_worker.wire.messages import WORKER_EXTENSIONS, ActiveRun, FunctionSchema, ModelTier, Registration, Resources
from gen_worker.wire_protocol import WIRE_PROTOCOL_MAJOR, WIRE_PROTOCOL_MINOR


class Registrar:
    """Makes the message that a stream opens with, from the current state."""

    def __init__(
        self,
        specs: Sequence[FunctionSpec],
        hardware: Hardware,
        gpus: GpuWatch,
        models: LoadedModels,
        *,
        instance_id: str,
        max_concurrency: int,
        runpod_pod_id: str,
        is_busy: Callable[[], bool],
        active_runs: Callable[[], Iterable[tuple[str, int]]],
    ) -> None:
        self._hardware = hardware
        self._gpus = gpus
        self._models = models
        self._instance_id = instance_id
        self._max_concurrency = max_concurrency
        self._runpod_pod_id = runpod_pod_id
        self._is_busy = is_busy
        self._active_runs = active_runs
        tasks = [spec for spec in specs if spec.kind == "function"]
        names = [spec.name for spec in tasks] + [spec.name for spec in specs if spec.kind == "websocket"]
        self._functions = tuple(dict.fromkeys(names))
        self._limits: Mapping[str, int] = {
            spec.name: spec.resources.max_concurrency for spec in specs if spec.resources.max_concurrency is not None
        }
        self._schemas = tuple(function_schema(spec) for spec in tasks)

    def registration(self, is_heartbeat: bool) -> Registration:
        """The worker's current state."""
        active = dict(sorted(self._active_runs()))  # when a run has two attempts, the later one
        return Registration(
            resources=self._resources(),
            is_heartbeat=is_heartbeat,
            protocol_major=WIRE_PROTOCOL_MAJOR,
            protocol_minor=WIRE_PROTOCOL_MINOR,
            extensions=WORKER_EXTENSIONS,
            instance_id=self._instance_id,
            active_run_ids=tuple(active),
            active_runs=tuple(ActiveRun(run_id, attempt) for run_id, attempt in active.items()),
        )

    def _resources(self) -> Resources:
        hardware, gpu = self._hardware, self._gpus.read()
        models = self._models
        tiers = model_tiers(models.cache, models.in_host_memory())
        in_vram = {tier.model_id for tier in tiers if tier.tier == "vram"}
        return Resources(
            cpu_cores=hardware.cpu_cores,
            memory_bytes=hardware.memory_bytes,
            gpu_count=gpu.count,
            gpu_memory_bytes=gpu.total_bytes,
            available_functions=self._functions,
            vram_models=tuple(sorted(in_vram)),
            supports_model_loading=True,
            runpod_pod_id=self._runpod_pod_id,
            gpu_is_busy=gpu.count > 0 and self._is_busy(),
            gpu_memory_used_bytes=gpu.used_bytes,
            gpu_name=gpu.name,
            gpu_driver=gpu.driver,
            gpu_memory_free_bytes=gpu.free_bytes,
            max_concurrency=self._max_concurrency,
            function_concurrency=self._limits,
            cuda_version=hardware.cuda_version,
            torch_version=hardware.torch_version,
            function_schemas=self._schemas,
            gpu_sm=gpu.compute_capability,
            onnxruntime_version=hardware.onnxruntime_version,
            disk_models=tuple(sorted({tier.model_id for tier in tiers} - in_vram)),
            installed_libs=hardware.installed_libs,
            model_tiers=tiers,
            network_bytes_per_s=models.measurements.rate(NET),
            load_bytes_per_s=models.measurements.rate(LOAD),
        )


def model_tiers(cache: ModelCache, in_host: Mapping[str, int]) -> tuple[ModelTier, ...]:
    """Where each model is. Several loaded forms of one model (a pipeline, its tokenizer) form one entry with their sizes added."""
    found: dict[tuple[str, str], int] = {(model_id, "host"): size_bytes for model_id, size_bytes in in_host.items()}
    for tier, names in (("vram", cache.get_vram_models()), ("disk", cache.get_disk_models())):
        for name in names:
            key = (model_of(name), tier)
            found[key] = found.get(key, 0) + round(cache.size_gb(name) * 1e9)
    return tuple(ModelTier(model_id, tier, size_bytes) for (model_id, tier), size_bytes in sorted(found.items()))


def function_schema(spec: FunctionSpec) -> FunctionSchema:
    """A function's schemas in the format of the registration."""
    output = compact_json(json_schema(spec.output_type))
    incremental = spec.output_mode == "incremental"
    injections = [
        {
            "param": injection.param,
            "type": injection.type.__qualname__ if isinstance(injection.type, type) else str(injection.type),
            "model_ref": {"source": injection.model_ref.source.value, "key": injection.model_ref.key},
        }
        for injection in spec.injections
    ]
    return FunctionSchema(
        name=spec.name,
        input_schema_json=compact_json(json_schema(spec.payload_type)),
        output_schema_json=output,
        injection_json=compact_json(injections),
        incremental_output=incremental,
        delta_schema_json=output if incremental else b"",
    )
