"""Metrics of a run taken from its payload: steps, sizes and times, if they are valid numbers."""

import resource
import sys
import types
from pathlib import Path

import msgspec
import pytest

from gen_worker.content.disk import mount_of
from gen_worker.events import METRICS_FETCH, METRICS_GPU_LOAD, METRICS_INFERENCE, METRICS_RUN, Milliseconds, RunMetrics, RunModel
from gen_worker.execution.phases import MAX_NUMBER, _peak_ram_bytes, run_metrics, utc_now
from gen_worker.residency.manager import ModelUse

NAN, INF = float("nan"), float("inf")


class Picture(msgspec.Struct):
    num_inference_steps: object = None
    steps: object = None
    width: object = None
    height: object = None
    guidance_scale: object = None
    guidance: object = None


class Plain(msgspec.Struct):
    prompt: str = ""


class Sly(msgspec.Struct):
    height: int = 1

    @property
    def steps(self) -> int:
        raise AssertionError("a property is the author's code: it is not asked here")


def summary(payload: msgspec.Struct, *uses: ModelUse, inference_s: float = 2.0, upload_s: object = 0.0) -> RunMetrics:
    found = {event.event_type: event.payload for event in run_metrics("f", payload, uses, inference_s, upload_s)}  # type: ignore[arg-type]
    assert found[METRICS_INFERENCE] == Milliseconds(round(inference_s * 1000))
    metrics = found[METRICS_RUN]
    assert isinstance(metrics, RunMetrics)
    assert (metrics.schema_version, metrics.function_name) == (1, "f")
    msgspec.json.encode(metrics)
    return metrics


def test_steps_sizes_and_guidance() -> None:
    found = summary(Picture(num_inference_steps=30, steps=5, width=512, height=768.4, guidance_scale=7.5, guidance=1.0))
    assert (found.steps, found.width, found.height, found.guidance, found.iters_per_s) == (30, 512, 768, 7.5, 15.0)
    found = summary(Picture(steps=4, guidance=3.0), inference_s=0.5)
    assert (found.steps, found.guidance, found.iters_per_s, found.width) == (4, 3.0, 8.0, None)
    assert summary(Picture(steps=1), inference_s=3.0).iters_per_s == 0.333
    assert summary(Picture(steps=4), inference_s=0.0).iters_per_s is None
    assert summary(Picture(steps=0)).iters_per_s is None
    assert summary(Sly()).steps is None


@pytest.mark.parametrize("payload", [Plain(), Picture(steps=1)])
def test_upload_times(payload: msgspec.Struct) -> None:
    assert summary(payload, upload_s=1.2345).upload_ms == 1234
    assert summary(payload, upload_s=0.0).upload_ms is None
    for odd in (NAN, INF, -INF, "long", None, 10**400, True):
        assert summary(payload, upload_s=odd).upload_ms is None
    assert summary(payload).inference_ms == 2000
    assert (summary(payload).peak_ram_bytes or 0) > 1 << 20


@pytest.mark.parametrize("odd", [NAN, INF, -INF, 10**400, -(10**400), 1e300, MAX_NUMBER + 1, True, "20", None, [1]])
def test_numbers_that_cannot_be_told_are_left_out(odd: object) -> None:
    found = summary(Picture(steps=odd, width=odd, height=odd, guidance=odd))
    assert (found.steps, found.width, found.height, found.guidance, found.iters_per_s) == (None,) * 5
    assert summary(Picture(num_inference_steps=odd, steps=7)).steps == 7


def test_models() -> None:
    cold = ModelUse("hf:a/b", "cold_remote", 1.5, 2.25, "v1", 1000)
    hot = ModelUse("hf:c/d", "hot_vram", 0.0)
    found = run_metrics("f", Plain(), [hot, cold], 1.0, 0.0)
    assert [event.event_type for event in found] == [METRICS_FETCH, METRICS_GPU_LOAD, METRICS_INFERENCE, METRICS_RUN]
    assert (found[0].payload, found[1].payload) == (Milliseconds(2250), Milliseconds(1500))
    metrics = found[3].payload
    assert (metrics.cache_state, metrics.gpu_load_ms) == ("cold_remote", 1500)
    first, second = metrics.models
    assert (first.model_id, first.bytes_downloaded, first.download_ms) == ("hf:c/d", None, None)
    assert (second.bytes_downloaded, second.download_ms, second.snapshot_digest) == (1000, 2250, "v1")


def test_the_largest_numbers_that_are_told() -> None:
    assert summary(Picture(steps=MAX_NUMBER)).steps == MAX_NUMBER
    assert summary(Picture(width=-MAX_NUMBER)).width == -MAX_NUMBER
    assert summary(Picture(width=-MAX_NUMBER - 2)).width is None
    assert summary(Picture(guidance=0)).guidance == 0


def test_what_each_model_was_read_from(tmp_path: Path) -> None:
    mount = mount_of(tmp_path)
    cold = ModelUse("hf:a/b", "cold_remote", 1.5, 2.25, "v1", 1000, path=tmp_path, localized=True)
    warm = ModelUse("hf:a/b", "warm_disk", 0.5, 2.25, "", 1000, path=tmp_path)
    hot = ModelUse("hf:a/b", "hot_vram", 0.0, path=tmp_path)
    assert [model.bytes_loaded for model in summary(Plain(), msgspec.structs.replace(warm, loaded_bytes=7), hot).models] == [7, None]
    backend = (mount.fstype, mount.backend) if mount else (None, None)
    assert summary(Plain(), cold).models == (RunModel("hf:a/b", "cold_remote", "v1", 1000, 2250, *backend, True),)
    assert summary(Plain(), warm).models == (RunModel("hf:a/b", "warm_disk", None, None, None, *backend, None),)
    assert summary(Plain(), hot).models == (RunModel("hf:a/b", "hot_vram", None, None, None, None, None, None),)
    assert (summary(Plain(), hot, warm).cache_state, summary(Plain(), hot).cache_state) == ("warm_disk", "hot_vram")
    assert summary(Plain(), hot, warm).gpu_load_ms == 500
    assert summary(Picture()).gpu_load_ms is None
    assert summary(Picture()).cache_state is None


def test_a_run_without_models_tells_two_figures() -> None:
    found = run_metrics("f", Plain(), (), 0.0126, 0.0)
    assert [(event.event_type, getattr(event.payload, "inference_ms", None)) for event in found] == [
        (METRICS_INFERENCE, None),
        (METRICS_RUN, 13),
    ]
    assert found[0].payload == Milliseconds(13)
    assert utc_now().endswith("Z")
    assert utc_now()[:4] >= "2024"


class FakeCuda:
    def __init__(self, available: bool, initialized: bool) -> None:
        self.is_available, self.is_initialized = lambda: available, lambda: initialized
        self.max_memory_allocated = lambda: 12345


@pytest.mark.parametrize(("available", "initialized", "peak"), [(True, True, 12345), (True, False, None), (False, True, None)])
def test_peak_memory_of_a_gpu_that_torch_has_touched(
    monkeypatch: pytest.MonkeyPatch, available: bool, initialized: bool, peak: int | None
) -> None:
    torch = types.ModuleType("torch")
    torch.cuda = FakeCuda(available, initialized)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert summary(Picture()).peak_vram_bytes == peak
    monkeypatch.delitem(sys.modules, "torch")
    assert summary(Picture()).peak_vram_bytes is None


@pytest.mark.parametrize(("platform", "unit_bytes"), [("linux", 1024), ("darwin", 1)])
def test_peak_memory_is_in_bytes_on_every_system(monkeypatch: pytest.MonkeyPatch, platform: str, unit_bytes: int) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert before * unit_bytes <= _peak_ram_bytes() <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes


def test_tokens_that_an_author_counted() -> None:
    def tokens(usage: object) -> tuple[int | None, int | None]:
        metrics = run_metrics("f", Plain(), (), 1.0, 0.0, usage)[-1].payload
        return metrics.input_tokens, metrics.output_tokens

    assert tokens((12, 34)) == (12, 34)
    assert tokens((0, MAX_NUMBER)) == (0, MAX_NUMBER)
    for odd in (10**400, True, 1.5, "7", None):
        assert tokens((odd, 34)) == (None, None)
        assert tokens((12, odd)) == (None, None)
    assert tokens((1, 2, 3)) == tokens(None) == (None, None)


def test_a_field_that_the_author_has_deleted_is_not_told() -> None:
    payload = Picture(num_inference_steps=5, steps=7)
    del payload.num_inference_steps
    assert summary(payload).steps == 7
