from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WorkerSchedulerMessage(_message.Message):
    __slots__ = ("worker_registration", "run_result", "load_model_result", "unload_model_result", "worker_event", "cozy_model_url_refresh_request", "run_request", "load_model_cmd", "unload_model_cmd", "interrupt_run_cmd", "release_artifact_config", "realtime_open_cmd", "realtime_frame", "realtime_close_cmd", "cozy_model_url_refresh_response", "batch", "hello", "ack", "realtime_credit")
    WORKER_REGISTRATION_FIELD_NUMBER: _ClassVar[int]
    RUN_RESULT_FIELD_NUMBER: _ClassVar[int]
    LOAD_MODEL_RESULT_FIELD_NUMBER: _ClassVar[int]
    UNLOAD_MODEL_RESULT_FIELD_NUMBER: _ClassVar[int]
    WORKER_EVENT_FIELD_NUMBER: _ClassVar[int]
    COZY_MODEL_URL_REFRESH_REQUEST_FIELD_NUMBER: _ClassVar[int]
    RUN_REQUEST_FIELD_NUMBER: _ClassVar[int]
    LOAD_MODEL_CMD_FIELD_NUMBER: _ClassVar[int]
    UNLOAD_MODEL_CMD_FIELD_NUMBER: _ClassVar[int]
    INTERRUPT_RUN_CMD_FIELD_NUMBER: _ClassVar[int]
    RELEASE_ARTIFACT_CONFIG_FIELD_NUMBER: _ClassVar[int]
    REALTIME_OPEN_CMD_FIELD_NUMBER: _ClassVar[int]
    REALTIME_FRAME_FIELD_NUMBER: _ClassVar[int]
    REALTIME_CLOSE_CMD_FIELD_NUMBER: _ClassVar[int]
    COZY_MODEL_URL_REFRESH_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    HELLO_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    REALTIME_CREDIT_FIELD_NUMBER: _ClassVar[int]
    worker_registration: WorkerRegistration
    run_result: TaskExecutionResult
    load_model_result: LoadModelResult
    unload_model_result: UnloadModelResult
    worker_event: WorkerEvent
    cozy_model_url_refresh_request: CozyModelURLRefreshRequest
    run_request: TaskExecutionRequest
    load_model_cmd: LoadModelCommand
    unload_model_cmd: UnloadModelCommand
    interrupt_run_cmd: InterruptTaskCommand
    release_artifact_config: ReleaseArtifactConfig
    realtime_open_cmd: RealtimeOpenCommand
    realtime_frame: RealtimeFrame
    realtime_close_cmd: RealtimeCloseCommand
    cozy_model_url_refresh_response: CozyModelURLRefreshResponse
    batch: MessageBatch
    hello: SchedulerHello
    ack: Ack
    realtime_credit: RealtimeCredit
    def __init__(self, worker_registration: _Optional[_Union[WorkerRegistration, _Mapping]] = ..., run_result: _Optional[_Union[TaskExecutionResult, _Mapping]] = ..., load_model_result: _Optional[_Union[LoadModelResult, _Mapping]] = ..., unload_model_result: _Optional[_Union[UnloadModelResult, _Mapping]] = ..., worker_event: _Optional[_Union[WorkerEvent, _Mapping]] = ..., cozy_model_url_refresh_request: _Optional[_Union[CozyModelURLRefreshRequest, _Mapping]] = ..., run_request: _Optional[_Union[TaskExecutionRequest, _Mapping]] = ..., load_model_cmd: _Optional[_Union[LoadModelCommand, _Mapping]] = ..., unload_model_cmd: _Optional[_Union[UnloadModelCommand, _Mapping]] = ..., interrupt_run_cmd: _Optional[_Union[InterruptTaskCommand, _Mapping]] = ..., release_artifact_config: _Optional[_Union[ReleaseArtifactConfig, _Mapping]] = ..., realtime_open_cmd: _Optional[_Union[RealtimeOpenCommand, _Mapping]] = ..., realtime_frame: _Optional[_Union[RealtimeFrame, _Mapping]] = ..., realtime_close_cmd: _Optional[_Union[RealtimeCloseCommand, _Mapping]] = ..., cozy_model_url_refresh_response: _Optional[_Union[CozyModelURLRefreshResponse, _Mapping]] = ..., batch: _Optional[_Union[MessageBatch, _Mapping]] = ..., hello: _Optional[_Union[SchedulerHello, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ..., realtime_credit: _Optional[_Union[RealtimeCredit, _Mapping]] = ...) -> None: ...

class WorkerRegistration(_message.Message):
    __slots__ = ("resources", "is_heartbeat", "protocol_major", "protocol_minor", "extensions", "instance_id", "active_run_ids", "active_runs")
    RESOURCES_FIELD_NUMBER: _ClassVar[int]
    IS_HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_MAJOR_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_MINOR_FIELD_NUMBER: _ClassVar[int]
    EXTENSIONS_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_RUN_IDS_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_RUNS_FIELD_NUMBER: _ClassVar[int]
    resources: WorkerResources
    is_heartbeat: bool
    protocol_major: int
    protocol_minor: int
    extensions: _containers.RepeatedScalarFieldContainer[str]
    instance_id: str
    active_run_ids: _containers.RepeatedScalarFieldContainer[str]
    active_runs: _containers.RepeatedCompositeFieldContainer[ActiveRun]
    def __init__(self, resources: _Optional[_Union[WorkerResources, _Mapping]] = ..., is_heartbeat: bool = ..., protocol_major: _Optional[int] = ..., protocol_minor: _Optional[int] = ..., extensions: _Optional[_Iterable[str]] = ..., instance_id: _Optional[str] = ..., active_run_ids: _Optional[_Iterable[str]] = ..., active_runs: _Optional[_Iterable[_Union[ActiveRun, _Mapping]]] = ...) -> None: ...

class ActiveRun(_message.Message):
    __slots__ = ("run_id", "attempt")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    attempt: int
    def __init__(self, run_id: _Optional[str] = ..., attempt: _Optional[int] = ...) -> None: ...

class WorkerResources(_message.Message):
    __slots__ = ("worker_id", "cpu_cores", "memory_bytes", "gpu_count", "gpu_memory_bytes", "available_functions", "vram_models", "supports_model_loading", "release_id", "runpod_pod_id", "gpu_is_busy", "gpu_memory_used_bytes", "gpu_name", "gpu_driver", "gpu_memory_free_bytes", "max_concurrency", "function_concurrency", "cuda_version", "torch_version", "function_schemas", "gpu_sm", "tensorrt_version", "onnxruntime_version", "disk_models", "installed_libs", "image_digest", "git_commit", "build_timestamp", "model_tiers", "network_bytes_per_s", "load_bytes_per_s")
    class FunctionConcurrencyEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    CPU_CORES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    GPU_COUNT_FIELD_NUMBER: _ClassVar[int]
    GPU_MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FUNCTIONS_FIELD_NUMBER: _ClassVar[int]
    VRAM_MODELS_FIELD_NUMBER: _ClassVar[int]
    SUPPORTS_MODEL_LOADING_FIELD_NUMBER: _ClassVar[int]
    RELEASE_ID_FIELD_NUMBER: _ClassVar[int]
    RUNPOD_POD_ID_FIELD_NUMBER: _ClassVar[int]
    GPU_IS_BUSY_FIELD_NUMBER: _ClassVar[int]
    GPU_MEMORY_USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    GPU_NAME_FIELD_NUMBER: _ClassVar[int]
    GPU_DRIVER_FIELD_NUMBER: _ClassVar[int]
    GPU_MEMORY_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    CUDA_VERSION_FIELD_NUMBER: _ClassVar[int]
    TORCH_VERSION_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_SCHEMAS_FIELD_NUMBER: _ClassVar[int]
    GPU_SM_FIELD_NUMBER: _ClassVar[int]
    TENSORRT_VERSION_FIELD_NUMBER: _ClassVar[int]
    ONNXRUNTIME_VERSION_FIELD_NUMBER: _ClassVar[int]
    DISK_MODELS_FIELD_NUMBER: _ClassVar[int]
    INSTALLED_LIBS_FIELD_NUMBER: _ClassVar[int]
    IMAGE_DIGEST_FIELD_NUMBER: _ClassVar[int]
    GIT_COMMIT_FIELD_NUMBER: _ClassVar[int]
    BUILD_TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    MODEL_TIERS_FIELD_NUMBER: _ClassVar[int]
    NETWORK_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    LOAD_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    cpu_cores: int
    memory_bytes: int
    gpu_count: int
    gpu_memory_bytes: int
    available_functions: _containers.RepeatedScalarFieldContainer[str]
    vram_models: _containers.RepeatedScalarFieldContainer[str]
    supports_model_loading: bool
    release_id: str
    runpod_pod_id: str
    gpu_is_busy: bool
    gpu_memory_used_bytes: int
    gpu_name: str
    gpu_driver: str
    gpu_memory_free_bytes: int
    max_concurrency: int
    function_concurrency: _containers.ScalarMap[str, int]
    cuda_version: str
    torch_version: str
    function_schemas: _containers.RepeatedCompositeFieldContainer[FunctionSchema]
    gpu_sm: str
    tensorrt_version: str
    onnxruntime_version: str
    disk_models: _containers.RepeatedScalarFieldContainer[str]
    installed_libs: _containers.RepeatedScalarFieldContainer[str]
    image_digest: str
    git_commit: str
    build_timestamp: int
    model_tiers: _containers.RepeatedCompositeFieldContainer[ModelTier]
    network_bytes_per_s: int
    load_bytes_per_s: int
    def __init__(self, worker_id: _Optional[str] = ..., cpu_cores: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., gpu_count: _Optional[int] = ..., gpu_memory_bytes: _Optional[int] = ..., available_functions: _Optional[_Iterable[str]] = ..., vram_models: _Optional[_Iterable[str]] = ..., supports_model_loading: bool = ..., release_id: _Optional[str] = ..., runpod_pod_id: _Optional[str] = ..., gpu_is_busy: bool = ..., gpu_memory_used_bytes: _Optional[int] = ..., gpu_name: _Optional[str] = ..., gpu_driver: _Optional[str] = ..., gpu_memory_free_bytes: _Optional[int] = ..., max_concurrency: _Optional[int] = ..., function_concurrency: _Optional[_Mapping[str, int]] = ..., cuda_version: _Optional[str] = ..., torch_version: _Optional[str] = ..., function_schemas: _Optional[_Iterable[_Union[FunctionSchema, _Mapping]]] = ..., gpu_sm: _Optional[str] = ..., tensorrt_version: _Optional[str] = ..., onnxruntime_version: _Optional[str] = ..., disk_models: _Optional[_Iterable[str]] = ..., installed_libs: _Optional[_Iterable[str]] = ..., image_digest: _Optional[str] = ..., git_commit: _Optional[str] = ..., build_timestamp: _Optional[int] = ..., model_tiers: _Optional[_Iterable[_Union[ModelTier, _Mapping]]] = ..., network_bytes_per_s: _Optional[int] = ..., load_bytes_per_s: _Optional[int] = ...) -> None: ...

class FunctionSchema(_message.Message):
    __slots__ = ("name", "input_schema_json", "output_schema_json", "injection_json", "incremental_output", "delta_schema_json")
    NAME_FIELD_NUMBER: _ClassVar[int]
    INPUT_SCHEMA_JSON_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_SCHEMA_JSON_FIELD_NUMBER: _ClassVar[int]
    INJECTION_JSON_FIELD_NUMBER: _ClassVar[int]
    INCREMENTAL_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    DELTA_SCHEMA_JSON_FIELD_NUMBER: _ClassVar[int]
    name: str
    input_schema_json: bytes
    output_schema_json: bytes
    injection_json: bytes
    incremental_output: bool
    delta_schema_json: bytes
    def __init__(self, name: _Optional[str] = ..., input_schema_json: _Optional[bytes] = ..., output_schema_json: _Optional[bytes] = ..., injection_json: _Optional[bytes] = ..., incremental_output: bool = ..., delta_schema_json: _Optional[bytes] = ...) -> None: ...

class TaskExecutionRequest(_message.Message):
    __slots__ = ("run_id", "function_name", "input_payload", "required_variant_refs", "timeout_ms", "owner", "invoker_id", "file_base_url", "file_token", "resolved_cozy_models_by_id", "traceparent", "attempt")
    class ResolvedCozyModelsByIdEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ResolvedCozyModel
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ResolvedCozyModel, _Mapping]] = ...) -> None: ...
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    INPUT_PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_VARIANT_REFS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    INVOKER_ID_FIELD_NUMBER: _ClassVar[int]
    FILE_BASE_URL_FIELD_NUMBER: _ClassVar[int]
    FILE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    RESOLVED_COZY_MODELS_BY_ID_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    function_name: str
    input_payload: bytes
    required_variant_refs: _containers.RepeatedScalarFieldContainer[str]
    timeout_ms: int
    owner: str
    invoker_id: str
    file_base_url: str
    file_token: str
    resolved_cozy_models_by_id: _containers.MessageMap[str, ResolvedCozyModel]
    traceparent: str
    attempt: int
    def __init__(self, run_id: _Optional[str] = ..., function_name: _Optional[str] = ..., input_payload: _Optional[bytes] = ..., required_variant_refs: _Optional[_Iterable[str]] = ..., timeout_ms: _Optional[int] = ..., owner: _Optional[str] = ..., invoker_id: _Optional[str] = ..., file_base_url: _Optional[str] = ..., file_token: _Optional[str] = ..., resolved_cozy_models_by_id: _Optional[_Mapping[str, ResolvedCozyModel]] = ..., traceparent: _Optional[str] = ..., attempt: _Optional[int] = ...) -> None: ...

class TaskExecutionResult(_message.Message):
    __slots__ = ("run_id", "success", "output_payload", "error_message", "error_type", "retryable", "safe_message", "code", "errors_json", "attempt")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ERROR_TYPE_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    SAFE_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    ERRORS_JSON_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    success: bool
    output_payload: bytes
    error_message: str
    error_type: str
    retryable: bool
    safe_message: str
    code: str
    errors_json: bytes
    attempt: int
    def __init__(self, run_id: _Optional[str] = ..., success: bool = ..., output_payload: _Optional[bytes] = ..., error_message: _Optional[str] = ..., error_type: _Optional[str] = ..., retryable: bool = ..., safe_message: _Optional[str] = ..., code: _Optional[str] = ..., errors_json: _Optional[bytes] = ..., attempt: _Optional[int] = ...) -> None: ...

class WorkerEvent(_message.Message):
    __slots__ = ("run_id", "event_type", "payload_json", "attempt")
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    EVENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_JSON_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    event_type: str
    payload_json: bytes
    attempt: int
    def __init__(self, run_id: _Optional[str] = ..., event_type: _Optional[str] = ..., payload_json: _Optional[bytes] = ..., attempt: _Optional[int] = ...) -> None: ...

class InterruptTaskCommand(_message.Message):
    __slots__ = ("run_id",)
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    run_id: str
    def __init__(self, run_id: _Optional[str] = ...) -> None: ...

class LoadModelCommand(_message.Message):
    __slots__ = ("model_id",)
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    def __init__(self, model_id: _Optional[str] = ...) -> None: ...

class UnloadModelCommand(_message.Message):
    __slots__ = ("model_id",)
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    def __init__(self, model_id: _Optional[str] = ...) -> None: ...

class LoadModelResult(_message.Message):
    __slots__ = ("model_id", "success", "error_message")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    success: bool
    error_message: str
    def __init__(self, model_id: _Optional[str] = ..., success: bool = ..., error_message: _Optional[str] = ...) -> None: ...

class UnloadModelResult(_message.Message):
    __slots__ = ("model_id", "success", "error_message")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    SUCCESS_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    success: bool
    error_message: str
    def __init__(self, model_id: _Optional[str] = ..., success: bool = ..., error_message: _Optional[str] = ...) -> None: ...

class ResolvedCozyModelFile(_message.Message):
    __slots__ = ("path", "size_bytes", "blake3", "url")
    PATH_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    BLAKE3_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    path: str
    size_bytes: int
    blake3: str
    url: str
    def __init__(self, path: _Optional[str] = ..., size_bytes: _Optional[int] = ..., blake3: _Optional[str] = ..., url: _Optional[str] = ...) -> None: ...

class ResolvedCozyModel(_message.Message):
    __slots__ = ("snapshot_digest", "files")
    SNAPSHOT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    snapshot_digest: str
    files: _containers.RepeatedCompositeFieldContainer[ResolvedCozyModelFile]
    def __init__(self, snapshot_digest: _Optional[str] = ..., files: _Optional[_Iterable[_Union[ResolvedCozyModelFile, _Mapping]]] = ...) -> None: ...

class CozyModelURLRefreshRequest(_message.Message):
    __slots__ = ("model_id",)
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    def __init__(self, model_id: _Optional[str] = ...) -> None: ...

class CozyModelURLRefreshResponse(_message.Message):
    __slots__ = ("model_id", "resolved")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    RESOLVED_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    resolved: ResolvedCozyModel
    def __init__(self, model_id: _Optional[str] = ..., resolved: _Optional[_Union[ResolvedCozyModel, _Mapping]] = ...) -> None: ...

class ModelSpec(_message.Message):
    __slots__ = ("ref", "dtypes")
    REF_FIELD_NUMBER: _ClassVar[int]
    DTYPES_FIELD_NUMBER: _ClassVar[int]
    ref: str
    dtypes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, ref: _Optional[str] = ..., dtypes: _Optional[_Iterable[str]] = ...) -> None: ...

class ModelsByKey(_message.Message):
    __slots__ = ("models",)
    class ModelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ModelSpec
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ModelSpec, _Mapping]] = ...) -> None: ...
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.MessageMap[str, ModelSpec]
    def __init__(self, models: _Optional[_Mapping[str, ModelSpec]] = ...) -> None: ...

class ReleaseArtifactConfig(_message.Message):
    __slots__ = ("supported_repo_refs", "repo_ref_by_key", "resolved_cozy_models_by_variant_ref", "required_variant_refs", "models_by_function")
    class RepoRefByKeyEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class ResolvedCozyModelsByVariantRefEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ResolvedCozyModel
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ResolvedCozyModel, _Mapping]] = ...) -> None: ...
    class ModelsByFunctionEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ModelsByKey
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ModelsByKey, _Mapping]] = ...) -> None: ...
    SUPPORTED_REPO_REFS_FIELD_NUMBER: _ClassVar[int]
    REPO_REF_BY_KEY_FIELD_NUMBER: _ClassVar[int]
    RESOLVED_COZY_MODELS_BY_VARIANT_REF_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_VARIANT_REFS_FIELD_NUMBER: _ClassVar[int]
    MODELS_BY_FUNCTION_FIELD_NUMBER: _ClassVar[int]
    supported_repo_refs: _containers.RepeatedScalarFieldContainer[str]
    repo_ref_by_key: _containers.ScalarMap[str, str]
    resolved_cozy_models_by_variant_ref: _containers.MessageMap[str, ResolvedCozyModel]
    required_variant_refs: _containers.RepeatedScalarFieldContainer[str]
    models_by_function: _containers.MessageMap[str, ModelsByKey]
    def __init__(self, supported_repo_refs: _Optional[_Iterable[str]] = ..., repo_ref_by_key: _Optional[_Mapping[str, str]] = ..., resolved_cozy_models_by_variant_ref: _Optional[_Mapping[str, ResolvedCozyModel]] = ..., required_variant_refs: _Optional[_Iterable[str]] = ..., models_by_function: _Optional[_Mapping[str, ModelsByKey]] = ...) -> None: ...

class RealtimeOpenCommand(_message.Message):
    __slots__ = ("session_id", "function_name", "required_variant_refs", "owner", "invoker_id", "timeout_ms", "file_base_url", "file_token")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_VARIANT_REFS_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    INVOKER_ID_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    FILE_BASE_URL_FIELD_NUMBER: _ClassVar[int]
    FILE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    function_name: str
    required_variant_refs: _containers.RepeatedScalarFieldContainer[str]
    owner: str
    invoker_id: str
    timeout_ms: int
    file_base_url: str
    file_token: str
    def __init__(self, session_id: _Optional[str] = ..., function_name: _Optional[str] = ..., required_variant_refs: _Optional[_Iterable[str]] = ..., owner: _Optional[str] = ..., invoker_id: _Optional[str] = ..., timeout_ms: _Optional[int] = ..., file_base_url: _Optional[str] = ..., file_token: _Optional[str] = ...) -> None: ...

class RealtimeFrame(_message.Message):
    __slots__ = ("session_id", "data", "is_text")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    IS_TEXT_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    data: bytes
    is_text: bool
    def __init__(self, session_id: _Optional[str] = ..., data: _Optional[bytes] = ..., is_text: bool = ...) -> None: ...

class RealtimeCloseCommand(_message.Message):
    __slots__ = ("session_id", "reason", "error_type", "code", "safe_message", "error_message")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ERROR_TYPE_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    SAFE_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    reason: str
    error_type: str
    code: str
    safe_message: str
    error_message: str
    def __init__(self, session_id: _Optional[str] = ..., reason: _Optional[str] = ..., error_type: _Optional[str] = ..., code: _Optional[str] = ..., safe_message: _Optional[str] = ..., error_message: _Optional[str] = ...) -> None: ...

class ModelTier(_message.Message):
    __slots__ = ("model_id", "tier", "size_bytes")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    tier: str
    size_bytes: int
    def __init__(self, model_id: _Optional[str] = ..., tier: _Optional[str] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class MessageBatch(_message.Message):
    __slots__ = ("messages", "first_seq", "ack_seq")
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQ_FIELD_NUMBER: _ClassVar[int]
    ACK_SEQ_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[WorkerSchedulerMessage]
    first_seq: int
    ack_seq: int
    def __init__(self, messages: _Optional[_Iterable[_Union[WorkerSchedulerMessage, _Mapping]]] = ..., first_seq: _Optional[int] = ..., ack_seq: _Optional[int] = ...) -> None: ...

class SchedulerHello(_message.Message):
    __slots__ = ("extensions", "last_seq")
    EXTENSIONS_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
    extensions: _containers.RepeatedScalarFieldContainer[str]
    last_seq: int
    def __init__(self, extensions: _Optional[_Iterable[str]] = ..., last_seq: _Optional[int] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("seq",)
    SEQ_FIELD_NUMBER: _ClassVar[int]
    seq: int
    def __init__(self, seq: _Optional[int] = ...) -> None: ...

class RealtimeCredit(_message.Message):
    __slots__ = ("session_id", "frames")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    frames: int
    def __init__(self, session_id: _Optional[str] = ..., frames: _Optional[int] = ...) -> None: ...
