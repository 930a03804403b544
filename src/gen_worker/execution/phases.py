"""Reports how long a run's phases took, as `metrics.*` events."""

import resource
import sys
import time
from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec

from gen_worker import events
from gen_worker.clock import utc_text
from gen_worker.content.disk import mount_of
from gen_worker.events import CacheState, RunEvent, RunMetrics, RunModel
from gen_worker.residency.manager import ModelUse

_MEASURED_FIELDS = frozenset({"num_inference_steps", "steps", "width", "height", "guidance_scale", "guidance"})
MAX_NUMBER = 2**53  # limit for a step count or a size: the largest integer that a double holds exactly, so rounding cannot raise
_WORST_FIRST: tuple[CacheState, ...] = ("cold_remote", "warm_disk", "hot_vram")


def utc_now() -> str:
    """The current time in the format of events."""
    return utc_text(time.time())


def run_metrics(
    function: str, payload: msgspec.Struct, uses: Sequence[ModelUse], inference_s: float, upload_s: float, usage: object = None
) -> list[RunEvent]:
    """The metrics of a successful run: one event for each figure, then all of them as schema 1 of `metrics.run`."""
    inference = RunEvent(events.METRICS_INFERENCE, events.Milliseconds(round(inference_s * 1000)))
    figures = _summary(function, payload, uses, inference_s, upload_s)
    match usage:  # from an attribute of the author's context
        case (int() as input_tokens, int() as output_tokens) if _usable(input_tokens) is not None and _usable(output_tokens) is not None:
            figures = msgspec.structs.replace(figures, input_tokens=input_tokens, output_tokens=output_tokens)
    summary = RunEvent(events.METRICS_RUN, figures)
    if not uses:
        return [inference, summary]
    fetch = RunEvent(events.METRICS_FETCH, events.Milliseconds(round(sum(use.fetch_s for use in uses) * 1000)))
    load = RunEvent(events.METRICS_GPU_LOAD, events.Milliseconds(round(sum(use.load_s for use in uses) * 1000)))
    return [fetch, load, inference, summary]


def _summary(function: str, payload: msgspec.Struct, uses: Sequence[ModelUse], inference_s: float, upload_s: float) -> RunMetrics:
    upload_s = _usable(upload_s) or 0.0  # from an attribute of the author's context
    if not uses and not _is_measured(type(payload)):
        upload_ms = round(upload_s * 1000) if upload_s else None
        return RunMetrics(1, function, inference_ms=round(inference_s * 1000), upload_ms=upload_ms, peak_ram_bytes=_peak_ram_bytes())
    steps = _number(payload, "num_inference_steps", "steps")
    guidance = _number(payload, "guidance_scale", "guidance")
    states = {use.cache_state for use in uses}
    return RunMetrics(
        schema_version=1,
        function_name=function,
        cache_state=next((state for state in _WORST_FIRST if state in states), None),
        models=tuple(map(_run_model, uses)),
        gpu_load_ms=round(sum(use.load_s for use in uses) * 1000) if uses else None,
        inference_ms=round(inference_s * 1000),
        upload_ms=round(upload_s * 1000) if upload_s else None,
        steps=None if steps is None else round(steps),
        width=_whole(_number(payload, "width")),
        height=_whole(_number(payload, "height")),
        guidance=guidance,
        iters_per_s=round(steps / inference_s, 3) if steps and inference_s > 0 else None,
        peak_ram_bytes=_peak_ram_bytes(),
        peak_vram_bytes=_peak_vram_bytes(),
    )


def _run_model(use: ModelUse) -> RunModel:
    fetched = use.cache_state == "cold_remote"
    mount = None if use.cache_state == "hot_vram" or use.path is None else mount_of(use.path)
    return RunModel(
        use.model_id,
        use.cache_state,
        use.version or None,
        use.fetched_bytes if fetched else None,
        round(use.fetch_s * 1000) if fetched else None,
        mount.fstype if mount else None,
        mount.backend if mount else None,
        use.localized or None,
        use.loaded_bytes or None,
    )


def _peak_ram_bytes() -> int:
    """The most resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # other systems report kilobytes


def _peak_vram_bytes() -> int | None:
    """The most GPU memory that torch has allocated so far, in bytes; None when torch has not used a GPU."""
    torch: Any = sys.modules.get("torch")
    try:
        if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
            return None
        return int(torch.cuda.max_memory_allocated())
    except AttributeError:  # another thread is importing torch right now
        return None


@cache
def _is_measured(kind: type[msgspec.Struct]) -> bool:
    """Whether payloads of this type have fields that the metrics report."""
    return not _MEASURED_FIELDS.isdisjoint(kind.__struct_fields__)


def _number(payload: msgspec.Struct, *names: str) -> float | None:
    """The first of these fields that holds a reportable number. A caller may send NaN, and an author may have set anything."""
    for name in names:
        # Only fields: a property would run the author's code here, on the worker's loop.
        value = _usable(getattr(payload, name, None)) if name in payload.__struct_fields__ else None
        if value is not None:
            return value
    return None


def _usable(value: object) -> float | None:
    """A plain number that can be rounded and sent; None for NaN, infinity and implausible values."""
    return value if type(value) in (int, float) and -MAX_NUMBER <= value <= MAX_NUMBER else None  # type: ignore[operator,return-value]


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
