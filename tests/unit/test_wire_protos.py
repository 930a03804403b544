"""The stubs are exactly the published protocol: names, numbers, types. Our additions have numbers above 100."""

import re
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from tests.conftest import ROOT

from gen_worker.pb import frontend_pb2, worker_scheduler_pb2

TYPES = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
}

# message: "number name type", `*` for repeated, `<a,b>` for a map.
SCHEDULER = {
    "WorkerSchedulerMessage": "1 worker_registration WorkerRegistration; 2 run_result TaskExecutionResult; 4 load_model_result LoadModelResult; "
    "5 unload_model_result UnloadModelResult; 6 worker_event WorkerEvent; 7 cozy_model_url_refresh_request CozyModelURLRefreshRequest; "
    "10 run_request TaskExecutionRequest; 11 load_model_cmd LoadModelCommand; 12 unload_model_cmd UnloadModelCommand; "
    "13 interrupt_run_cmd InterruptTaskCommand; 14 release_artifact_config ReleaseArtifactConfig; 15 realtime_open_cmd RealtimeOpenCommand; "
    "16 realtime_frame RealtimeFrame; 17 realtime_close_cmd RealtimeCloseCommand; 18 cozy_model_url_refresh_response CozyModelURLRefreshResponse",
    "WorkerRegistration": "1 resources WorkerResources; 2 is_heartbeat bool; 3 protocol_major int32; 4 protocol_minor int32",
    "WorkerResources": "1 worker_id string; 2 cpu_cores int32; 3 memory_bytes int64; 4 gpu_count int32; 5 gpu_memory_bytes int64; "
    "6 available_functions *string; 7 vram_models *string; 8 supports_model_loading bool; 9 release_id string; 10 runpod_pod_id string; "
    "11 gpu_is_busy bool; 12 gpu_memory_used_bytes int64; 13 gpu_name string; 14 gpu_driver string; 15 gpu_memory_free_bytes int64; "
    "16 max_concurrency int32; 17 function_concurrency <string,int32>; 18 cuda_version string; 19 torch_version string; "
    "20 function_schemas *FunctionSchema; 21 gpu_sm string; 22 tensorrt_version string; 23 onnxruntime_version string; 24 disk_models *string; "
    "25 installed_libs *string; 26 image_digest string; 27 git_commit string; 28 build_timestamp int64",
    "FunctionSchema": "1 name string; 2 input_schema_json bytes; 3 output_schema_json bytes; 4 injection_json bytes; 5 incremental_output bool; "
    "6 delta_schema_json bytes",
    "TaskExecutionRequest": "1 run_id string; 2 function_name string; 3 input_payload bytes; 4 required_variant_refs *string; 5 timeout_ms int64; "
    "6 owner string; 7 invoker_id string; 8 file_base_url string; 9 file_token string; 10 resolved_cozy_models_by_id <string,ResolvedCozyModel>",
    "TaskExecutionResult": "1 run_id string; 2 success bool; 3 output_payload bytes; 4 error_message string; 5 error_type string; 6 retryable bool; "
    "7 safe_message string",
    "WorkerEvent": "1 run_id string; 2 event_type string; 3 payload_json bytes",
    "InterruptTaskCommand": "1 run_id string",
    "LoadModelCommand": "1 model_id string",
    "UnloadModelCommand": "1 model_id string",
    "LoadModelResult": "1 model_id string; 2 success bool; 3 error_message string",
    "UnloadModelResult": "1 model_id string; 2 success bool; 3 error_message string",
    "ResolvedCozyModelFile": "1 path string; 2 size_bytes int64; 3 blake3 string; 4 url string",
    "ResolvedCozyModel": "1 snapshot_digest string; 2 files *ResolvedCozyModelFile",
    "CozyModelURLRefreshRequest": "1 model_id string",
    "CozyModelURLRefreshResponse": "1 model_id string; 2 resolved ResolvedCozyModel",
    "ModelSpec": "1 ref string; 2 dtypes *string",
    "ModelsByKey": "1 models <string,ModelSpec>",
    "ReleaseArtifactConfig": "1 supported_repo_refs *string; 2 repo_ref_by_key <string,string>; "
    "3 resolved_cozy_models_by_variant_ref <string,ResolvedCozyModel>; 4 required_variant_refs *string; 5 models_by_function <string,ModelsByKey>",
    "RealtimeOpenCommand": "1 session_id string; 2 function_name string; 3 required_variant_refs *string; 4 owner string; 5 invoker_id string; "
    "6 timeout_ms int64; 7 file_base_url string; 8 file_token string",
    "RealtimeFrame": "1 session_id string; 2 data bytes; 3 is_text bool",
    "RealtimeCloseCommand": "1 session_id string; 2 reason string",
}
EXTENSIONS = {
    "WorkerSchedulerMessage": "101 batch MessageBatch; 102 hello SchedulerHello; 103 ack Ack; 104 realtime_credit RealtimeCredit",
    "WorkerRegistration": "101 extensions *string; 102 instance_id string; 103 active_run_ids *string; 104 active_runs *ActiveRun",
    "WorkerEvent": "110 attempt int64",
    "TaskExecutionRequest": "101 traceparent string; 110 attempt int64",
    "TaskExecutionResult": "101 code string; 102 errors_json bytes; 110 attempt int64",
    "RealtimeCloseCommand": "101 error_type string; 102 code string; 103 safe_message string; 104 error_message string",
    "WorkerResources": "101 model_tiers *ModelTier; 102 network_bytes_per_s int64; 103 load_bytes_per_s int64",
}
OWN_MESSAGES = {"ActiveRun", "ModelTier", "MessageBatch", "SchedulerHello", "Ack", "RealtimeCredit"}
FRONTEND = {
    "ActionOptions": "1 id string; 2 timeout_ms int64",
    "VariantPreferences": "1 quant Quantization; 2 packaging Packaging; 3 layout Layout",
    "ExecuteActionRequest": "1 function_name string; 2 input_payload bytes; 3 options ActionOptions; 4 release_id string; 6 invoker_id string; "
    "7 required_repo_refs *string; 8 owner string; 9 variant_prefs VariantPreferences",
    "ExecuteActionResponse": "1 run_id string",
    "CancelRunRequest": "1 run_id string",
    "CancelRunResponse": "1 ok bool",
    "RealtimeOpen": "1 session_id string; 2 release_id string; 3 function_name string; 4 owner string; 5 invoker_id string; 6 timeout_ms int64",
    "RealtimeFrame": "1 session_id string; 2 data bytes; 3 is_text bool",
    "RealtimeClose": "1 session_id string; 2 reason string",
    "RealtimeProxyMessage": "1 open RealtimeOpen; 2 frame RealtimeFrame; 3 close RealtimeClose",
}


def fields_of(message: Descriptor) -> dict[int, str]:
    return {field.number: f"{field.number} {field.name} {kind_of(field)}" for field in message.fields}


def kind_of(field: FieldDescriptor) -> str:
    named = field.message_type or field.enum_type
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = field.message_type.fields
        return f"<{kind_of(key)},{kind_of(value)}>"
    return ("*" if field.is_repeated else "") + (named.name if named is not None else TYPES[field.type])


def table(text: str) -> set[str]:
    return {part.strip() for part in text.split(";")}


@pytest.mark.parametrize("name", SCHEDULER)
def test_worker_messages_are_the_published_ones(name: str) -> None:
    found = fields_of(worker_scheduler_pb2.DESCRIPTOR.message_types_by_name[name])
    assert {text for number, text in found.items() if number <= 100} == table(SCHEDULER[name])
    assert {text for number, text in found.items() if number > 100} == table(EXTENSIONS.get(name, "")) - {""}


@pytest.mark.parametrize("name", FRONTEND)
def test_frontend_messages_are_the_published_ones(name: str) -> None:
    assert set(fields_of(frontend_pb2.DESCRIPTOR.message_types_by_name[name]).values()) == table(FRONTEND[name])


def test_there_are_no_other_messages() -> None:
    assert set(worker_scheduler_pb2.DESCRIPTOR.message_types_by_name) == {*SCHEDULER, *OWN_MESSAGES}
    assert set(frontend_pb2.DESCRIPTOR.message_types_by_name) == set(FRONTEND)


def test_services_packages_and_enums() -> None:
    worker: FileDescriptor = worker_scheduler_pb2.DESCRIPTOR
    frontend: FileDescriptor = frontend_pb2.DESCRIPTOR
    assert (worker.package, frontend.package) == ("scheduler.v1", "frontend.v1")
    connect = worker.services_by_name["SchedulerWorkerService"].methods_by_name["ConnectWorker"]
    assert (connect.input_type.name, connect.output_type.name) == ("WorkerSchedulerMessage", "WorkerSchedulerMessage")
    assert connect.client_streaming
    assert connect.server_streaming
    methods = frontend.services_by_name["FrontendService"].methods_by_name
    assert {name: (m.input_type.name, m.output_type.name, m.client_streaming, m.server_streaming) for name, m in methods.items()} == {
        "ExecuteAction": ("ExecuteActionRequest", "ExecuteActionResponse", False, False),
        "CancelRun": ("CancelRunRequest", "CancelRunResponse", False, False),
        "RealtimeSession": ("RealtimeProxyMessage", "RealtimeProxyMessage", True, True),
    }
    enums = frontend.message_types_by_name["VariantPreferences"].enum_types_by_name
    assert {name: {v.name: v.number for v in enum.values} for name, enum in enums.items()} == {
        "Quantization": {"QUANT_UNSPECIFIED": 0, "FP16": 1, "BF16": 2, "FP8": 3},
        "Packaging": {"PACKAGING_UNSPECIFIED": 0, "SAFETENSORS": 1, "FLASHPACK": 2},
        "Layout": {"LAYOUT_UNSPECIFIED": 0, "DIFFUSERS": 1},
    }
    assert worker.enum_types_by_name == {}
    assert all(len(m.oneofs) == (1 if m.name == "WorkerSchedulerMessage" else 0) for m in worker.message_types_by_name.values())


def test_every_worker_message_travels_in_the_one_oneof() -> None:
    oneof = worker_scheduler_pb2.WorkerSchedulerMessage.DESCRIPTOR.oneofs_by_name["msg"]
    assert len(oneof.fields) == len(worker_scheduler_pb2.WorkerSchedulerMessage.DESCRIPTOR.fields)


def test_the_stubs_are_those_of_the_protos() -> None:
    """Every field of the .proto files is in the stubs; scripts/protos makes the rest the same."""
    for name, stub in (("worker_scheduler", worker_scheduler_pb2), ("frontend", frontend_pb2)):
        text = Path(ROOT / "gen-orchestrator" / "proto" / f"{name}.proto").read_text()
        written = set(re.findall(r"(\w+) = (\d+);", re.sub(r"//.*", "", text)))
        in_stubs = {
            (field.name, str(field.number)) for message in stub.DESCRIPTOR.message_types_by_name.values() for field in message.fields
        } | {
            (value.name, str(value.number))
            for message in stub.DESCRIPTOR.message_types_by_name.values()
            for enum in message.enum_types
            for value in enum.values
        }
        assert written == in_stubs
