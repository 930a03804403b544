"""Every setting has a type and a range; a wrong value is named with its variable and what is expected."""

from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from gen_worker.settings import DeviceSettings, ModelSettings, RunLimits, SettingError, WorkerSettings, check_settings
from gen_worker.settings.models import LOCAL_CACHE_DIR
from gen_worker.settings.reading import Range, is_true, rule_of, split_list

ALL = (RunLimits, WorkerSettings, ModelSettings, DeviceSettings)
FIELDS = [(kind, field) for kind in ALL for field in msgspec.structs.fields(kind)]
NUMBERS = [(kind, field) for kind, field in FIELDS if isinstance(rule_of(field.type), Range)]


def named(cases: list[tuple[type[Any], msgspec.structs.FieldInfo]]) -> list[str]:
    return [f"{kind.__name__}.{field.name}" for kind, field in cases]


@pytest.mark.parametrize(("kind", "field"), FIELDS, ids=named(FIELDS))
def test_every_number_has_a_range(kind: type[Any], field: msgspec.structs.FieldInfo) -> None:
    parts = {part for note in (field.type, *get_args(field.type)) for part in (note, *get_args(note))}
    assert not parts & {int, float} or isinstance(rule_of(field.type), Range)
    assert kind.from_env({}) is not None


@pytest.mark.parametrize(
    "text", ["nan", "inf", "-inf", "-2", "-1.5", "1e400", "9" * 30, "9" * 5000, "x", "1,5", "0x10", "1 0", "²", "1e", "--1", "\0"]
)
@pytest.mark.parametrize(("kind", "field"), NUMBERS, ids=named(NUMBERS))
def test_a_number_out_of_its_range_is_named(kind: Any, field: msgspec.structs.FieldInfo, text: str) -> None:
    with pytest.raises(SettingError) as raised:
        kind.from_env({field.encode_name: text})
    message = str(raised.value)
    assert message.startswith(f"environment variable {field.encode_name}=")
    assert ": expected " in message
    assert " from " in message
    assert len(message) < 400


@pytest.mark.parametrize(("kind", "field"), NUMBERS, ids=named(NUMBERS))
def test_both_ends_of_a_range_are_taken(kind: Any, field: msgspec.structs.FieldInfo) -> None:
    rule = rule_of(field.type)
    for number in (rule.low, rule.high):
        assert getattr(
            kind.from_env({field.encode_name: str(int(number)) if number == int(number) else str(number)}), field.name
        ) == pytest.approx(number, rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "name", "text", "expected"),
    [
        (
            RunLimits,
            "WORKER_MAX_CONCURRENCY",
            "-1",
            "WORKER_MAX_CONCURRENCY=-1: expected a whole number from 0 up to 1000000 (0: no limit)",
        ),
        (WorkerSettings, "WORKER_HEARTBEAT_S", "0", "WORKER_HEARTBEAT_S=0.0: expected seconds from 0.01 up to 3600"),
        (WorkerSettings, "WORKER_MAX_MESSAGE_BYTES", "65535", "expected bytes from 65536 up to 2147483647"),
        (WorkerSettings, "USE_TLS", "maybe", "USE_TLS='maybe': expected one of 1, true"),
        (WorkerSettings, "COZY_HUB_URL", "hub.example", "COZY_HUB_URL='hub.example': expected an address such as https://host"),
        (WorkerSettings, "FILE_API_BASE_URL", "http://", "expected an address"),
        (ModelSettings, "WORKER_MODEL_CACHE_GB", "inf", "WORKER_MODEL_CACHE_GB=inf: expected GB of 10^9 bytes from 0 up"),
        (ModelSettings, "WORKER_LOAD_AHEAD", "perhaps", "WORKER_LOAD_AHEAD='perhaps': expected one of 1, true"),
        (ModelSettings, "COZY_HF_WEIGHT_PRECISIONS", "fp16,int3", "COZY_HF_WEIGHT_PRECISIONS='int3': expected some of"),
        (DeviceSettings, "WORKER_EVICTION", "fifo", "WORKER_EVICTION='fifo': expected score or lru"),
        (DeviceSettings, "WORKER_DEVICE", "gpu", "WORKER_DEVICE='gpu': expected cpu, mps, cuda or cuda:0"),
        (DeviceSettings, "WORKER_TORCH_DEVICE", "cuda,cuda:0", "each once"),
        (DeviceSettings, "WORKER_TORCH_DEVICE", "cuda:-1", "WORKER_TORCH_DEVICE='cuda:-1'"),
        (DeviceSettings, "WORKER_TORCH_DEVICE", "cuda:1.5", "WORKER_TORCH_DEVICE='cuda:1.5'"),
    ],
)
def test_what_is_said(kind: Any, name: str, text: str, expected: str) -> None:
    with pytest.raises(SettingError) as raised:
        kind.from_env({name: text})
    assert expected in str(raised.value)


@pytest.mark.parametrize("text", ["true", "1", "t", "YES", "on"])
def test_switches_that_are_on(text: str) -> None:
    assert WorkerSettings.from_env({"USE_TLS": text}).use_tls is True


def test_defaults_and_empty_values() -> None:
    assert WorkerSettings.from_env({"USE_TLS": " ", "WORKER_HEARTBEAT_S": ""}) == WorkerSettings()
    for kind in ALL:
        check_settings(kind())


def test_values_of_a_program_keep_to_the_ranges_too() -> None:
    with pytest.raises(SettingError, match="RECONNECT_DELAY=nan"):
        check_settings(msgspec.structs.replace(WorkerSettings(), reconnect_delay=float("nan")))


def test_defaults_of_sizes() -> None:
    assert RunLimits().worker_max_output_file_bytes == RunLimits().worker_max_input_file_bytes == 209_715_200
    assert RunLimits().upload_bytes == 209_715_200
    assert RunLimits().worker_max_output_delta_bytes == 65_536
    assert WorkerSettings().worker_max_message_bytes == 16_777_216
    assert RunLimits.from_env({"WORKER_MAX_UPLOAD_BYTES": "5"}).upload_bytes == 5
    assert RunLimits.from_env({"WORKER_MAX_UPLOAD_BYTES": "0"}).upload_bytes == 0
    assert RunLimits.from_env({"WORKER_MAX_UPLOAD_BYTES": "-1"}).upload_bytes == 0
    assert RunLimits.from_env({"WORKER_MAX_OUTPUT_FILE_BYTES": "7"}).upload_bytes == 7


@pytest.mark.parametrize(
    ("env", "token", "base"),
    [
        ({}, "", ""),
        ({"COZY_HUB_TOKEN": "hub", "COZY_HUB_URL": "https://hub"}, "hub", "https://hub"),
        ({"FILE_API_TOKEN": "files", "COZY_HUB_TOKEN": "hub"}, "files", ""),
        ({"FILE_API_TOKEN": "files"}, "files", ""),
        ({"ORCHESTRATOR_HTTP_URL": "https://orchestrator", "COZY_HUB_URL": "https://hub"}, "", "https://orchestrator"),
        ({"FILE_API_BASE_URL": "https://f", "ORCHESTRATOR_HTTP_URL": "https://o", "COZY_HUB_URL": "https://h"}, "", "https://f"),
    ],
)
def test_where_files_go_if_a_run_does_not_say(env: dict[str, str], token: str, base: str) -> None:
    settings = WorkerSettings.from_env(env)
    assert (settings.files_token, settings.files_base) == (token, base)


def test_no_gpu_is_not_the_same_as_any_gpu() -> None:
    assert DeviceSettings.from_env({}).cuda_visible_devices is None
    assert DeviceSettings.from_env({"CUDA_VISIBLE_DEVICES": ""}).cuda_visible_devices == ""
    assert DeviceSettings.from_env({"WORKER_DEVICE": "cuda:1, cpu"}).device_names == ("cuda:1", "cpu")


def test_where_models_are_kept() -> None:
    assert ModelSettings.from_env({}).worker_local_model_cache_dir == LOCAL_CACHE_DIR
    emptied = ModelSettings.from_env({"WORKER_LOCAL_MODEL_CACHE_DIR": "", "HF_TOKEN": "t"})
    assert (emptied.worker_local_model_cache_dir, emptied.hf_token) == ("", "t")
    assert ModelSettings.from_env({"WORKER_LOCAL_MODEL_CACHE_DIR": "/x"}).worker_local_model_cache_dir == "/x"
    env = {
        "HF_HOME": "$BASE/hf",
        "HF_HUB_CACHE": "${BASE}/hub",
        "HF_TOKEN_PATH": "$NONE/${ALSO NONE}/t",
        "BASE": "/base",
        "HF_TOKEN": "$BASE",
    }
    found = ModelSettings.from_env(env)
    assert (found.hf_home, found.hf_hub_cache, found.hf_token_path) == ("/base/hf", "/base/hub", "$NONE/${ALSO NONE}/t")
    assert found.hf_token == "$BASE", "only folders"
    assert ModelSettings(tensorhub_cache_dir="/x").cas_root == Path("/x/cas")
    assert ModelSettings(tensorhub_cache_dir="~/x").cas_root == Path.home() / "x/cas"
    assert ModelSettings.from_env({"COZY_HF_WEIGHT_PRECISIONS": "fp16, int4"}).cozy_hf_weight_precisions == "fp16, int4"


SWITCH = "one of 1, true, yes, on, y, t or 0, false, no, off, n, f"
URL = "an address such as https://host or http://host:port"


@pytest.mark.parametrize(
    ("kind", "name", "text", "message"),
    [
        (ModelSettings, "COZY_HF_WEIGHT_PRECISIONS", "int3", "'int3': expected some of fp16, bf16, fp8, fp32, int8, int4"),
        (ModelSettings, "WORKER_LOAD_AHEAD", "perhaps", f"'perhaps': expected {SWITCH}"),
        (WorkerSettings, "USE_TLS", "maybe", f"'maybe': expected {SWITCH}"),
        (ModelSettings, "HF_ENDPOINT", "ftp://host", f"'ftp://host': expected {URL}"),
        (ModelSettings, "HF_ENDPOINT", "https://a b", f"'https://a b': expected {URL}"),
        (ModelSettings, "HF_ENDPOINT", "https:///", f"'https:///': expected {URL}"),
        (ModelSettings, "COZY_HF_MAX_GB", "x", "'x': expected GB of 10^9 bytes from 0 up to 1000000"),
        (ModelSettings, "COZY_HF_MAX_GB", "0" * 101 + "x", f"{'0' * 100!r}: expected GB of 10^9 bytes from 0 up to 1000000"),
        (ModelSettings, "COZY_HF_MAX_GB", "-" + "1" * 99, f"{-float('1' * 99)}: expected GB of 10^9 bytes from 0 up to 1000000"),
        (ModelSettings, "COZY_HF_MAX_GB", "-" + "1" * 100, f"{'-' + '1' * 99!r}: expected GB of 10^9 bytes from 0 up to 1000000"),
        (ModelSettings, "WORKER_MAX_CONCURRENT_DOWNLOADS", "0", "0: expected a whole number from 1 up to 64"),
        (RunLimits, "WORKER_MAX_OUTPUT_FILE_BYTES", "-2", "-2: expected bytes from -1 up to 1125899906842624 (0 or below: no limit)"),
        (WorkerSettings, "WORKER_HEARTBEAT_S", "0", "0.0: expected seconds from 0.01 up to 3600"),
        (DeviceSettings, "WORKER_EVICTION", "fifo", "'fifo': expected score or lru"),
        (DeviceSettings, "WORKER_DEVICE", "gpu,", "'gpu': expected cpu, mps, cuda or cuda:0,cuda:1 and so on, each once"),
    ],
)
def test_the_whole_of_what_is_said(kind: Any, name: str, text: str, message: str) -> None:
    with pytest.raises(SettingError) as raised:
        kind.from_env({name: text})
    assert str(raised.value) == f"environment variable {name}={message}"


def test_words_of_switches() -> None:
    for text in ("0", "false", "NO", "off", "n", "F"):
        assert WorkerSettings.from_env({"USE_TLS": text}).use_tls is False
    assert (is_true(" Yes "), is_true("2"), is_true("")) == (True, False, False)
    assert split_list(" a, ,b ,,c") == ("a", "b", "c")
    assert ModelSettings.from_env({"HF_ENDPOINT": "HTTP://h/"}).hf_endpoint == "HTTP://h/"


def test_devices_by_name() -> None:
    assert DeviceSettings(worker_torch_device="cuda", worker_device="cpu").device_names == ("cuda",)
    assert DeviceSettings(worker_torch_device="cuda").device_variable == "WORKER_TORCH_DEVICE"
    assert DeviceSettings(worker_device="cpu").device_variable == "WORKER_DEVICE"
    assert DeviceSettings.from_env({"WORKER_DEVICE": "mps"}).device_names == ("mps",)
    assert DeviceSettings().margin_bytes == 3_500_000_000
    with pytest.raises(SettingError, match="'cuda:1000'"):
        DeviceSettings.from_env({"WORKER_DEVICE": "cuda:1000"})
    with pytest.raises(SettingError, match="'cuda,cuda:0'"):
        DeviceSettings.from_env({"WORKER_DEVICE": "cuda, cuda:0"})


def test_settings_of_a_program_may_be_empty_or_left_out() -> None:
    settings = msgspec.structs.replace(ModelSettings(), worker_load_ahead="", cozy_hub_url="")
    assert check_settings(settings) is settings
    assert check_settings(DeviceSettings(worker_max_vram_gb=None)).worker_max_vram_gb is None
    with pytest.raises(SettingError) as raised:
        check_settings(DeviceSettings(worker_max_vram_gb=-1.0))
    assert str(raised.value) == "environment variable WORKER_MAX_VRAM_GB=-1.0: expected GB of 10^9 bytes from 0 up to 1000000"
