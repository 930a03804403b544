"""Checks what a worker reports about itself and its runs, where it enters. Pure.

A worker runs an author's code, and may be of any version. Nothing that it reports may break shared things, such as the
list of all runs, a placement, or the recovery after a restart. Whatever passes these checks can be decoded, stored,
shown as JSON and counted with; no later code checks it again. Code that stores another value from a worker must add its
check here.
"""

from typing import Any

import msgspec

from gen_orchestrator.domain.runs import Run
from gen_worker.contract.run import RunSession
from gen_worker.texts import sound
from gen_worker.wire.messages import ModelTier, Resources, RunResult

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # raised by msgspec's decoders for arbitrary bytes
MAX_DEPTH = 200  # for stored JSON or msgpack: any code can read this without exhausting the stack
MAX_WORD_CHARS = 100
MAX_MESSAGE_CHARS = 500
MAX_DETAIL_CHARS = 4000
TIERS = ("vram", "host", "disk")
_MAX_NUMBER = 1 << 62

_read_json = msgspec.json.Decoder().decode
_read_msgpack = msgspec.msgpack.Decoder().decode
_write_json = msgspec.json.Encoder().encode


class RunMetrics(msgspec.Struct, frozen=True):
    """The part of a worker's `metrics.run` that is read here, and what this program adds to it."""

    models: msgspec.Raw = msgspec.Raw(b"null")
    gpu_load_ms: int | None = None
    inference_ms: int | None = None
    upload_ms: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    session: RunSession | None = None  # added by us: see `endings.with_session`


class _Fetched(msgspec.Struct, frozen=True):
    """The part of a model in `metrics.run` that is read here."""

    bytes_downloaded: int | None = None
    bytes_loaded: int | None = None
    download_ms: int | None = None


class Moved(msgspec.Struct, frozen=True):
    """The cost of bringing the models of a run."""

    downloaded_bytes: int = 0
    loaded_bytes: int = 0
    download_ms: int = 0


_read_metrics = msgspec.json.Decoder(RunMetrics).decode
_read_fetched = msgspec.json.Decoder(list[_Fetched] | None).decode


def is_json(data: bytes) -> bool:
    """Whether this is JSON that every reader accepts."""
    try:
        return _is_shallow(data, _read_json(data))
    except UNREADABLE:
        return False


def metrics_in(data: bytes) -> RunMetrics:
    """The metrics of a run; empty ones when a worker sent something else."""
    try:
        return _read_metrics(data) if data else RunMetrics()
    except UNREADABLE:
        return RunMetrics()


def moved_models(metrics: RunMetrics) -> Moved:
    """What was moved for a run; nothing when a worker sent something else."""
    if bytes(metrics.models) == b"null":
        return Moved()
    try:
        found = _read_fetched(metrics.models) or ()
    except UNREADABLE:
        return Moved()
    return Moved(
        sum(_counted(each.bytes_downloaded) for each in found),
        sum(_counted(each.bytes_loaded) for each in found),
        sum(_counted(each.download_ms) for each in found),
    )


def downloaded_bytes(metrics: RunMetrics) -> int:
    """Bytes of models downloaded for a run."""
    return moved_models(metrics).downloaded_bytes


def _counted(number: int | None) -> int:
    return number if number is not None and 0 < number < _MAX_NUMBER else 0


def is_session(run: Run) -> bool:
    """Whether this finished run was a realtime session, whose input is not stored."""
    return b'"session"' in run.metrics and metrics_in(run.metrics).session is not None


def kept_metrics(data: bytes) -> bytes:
    """What is stored of `metrics.run`, which `is_json`: all of it, or nothing when it cannot be decoded."""
    try:
        _read_metrics(data)
    except UNREADABLE:
        return b""
    return data


def output_in(data: bytes) -> Any:
    """An output for display; None when there is none, or an earlier version stored something undecodable."""
    try:
        return _read_msgpack(data) if data else None
    except UNREADABLE:
        return None


def checked_result(result: RunResult) -> RunResult:
    """The result; replaced by a failure when its output cannot be shown. Texts are limited."""
    if result.success:
        why = _unshowable(result.output) if result.output else ""
        return result if not why else _spoiled(result, why)
    return msgspec.structs.replace(
        result,
        error_type=sound(result.error_type, MAX_WORD_CHARS),
        code=sound(result.code, MAX_WORD_CHARS),
        safe_message=sound(result.safe_message, MAX_MESSAGE_CHARS),
        error_message=sound(result.error_message, MAX_DETAIL_CHARS),
    )


def checked_resources(resources: Resources) -> Resources:
    """What a worker has, with numbers made safe for calculations: no negative ones, and no unknown model locations."""
    numbers = {
        name: min(max(0, getattr(resources, name)), _MAX_NUMBER)
        for name in ("max_concurrency", "load_bytes_per_s", "network_bytes_per_s", "gpu_memory_used_bytes", "gpu_memory_bytes")
    }
    tiers = tuple(
        ModelTier(tier.model_id, tier.tier, min(max(0, tier.size_bytes), _MAX_NUMBER))
        for tier in resources.model_tiers
        if tier.tier in TIERS
    )
    return msgspec.structs.replace(resources, model_tiers=tiers, **numbers)


def _unshowable(output: bytes) -> str:
    """Why an output cannot be shown as JSON; empty when it can."""
    try:
        value = _read_msgpack(output)
        text = _write_json(value)
    except UNREADABLE as exc:
        return f"{type(exc).__name__}: {exc}"
    except (TypeError, ValueError) as exc:  # raised by the encoder: keys that are not texts, types that only msgpack has
        return str(exc)
    return "" if _is_shallow(text, value) else f"it is nested more than {MAX_DEPTH} levels deep"


def _spoiled(result: RunResult, why: str) -> RunResult:
    text = sound(f"the worker's output cannot be shown as JSON: {why}", MAX_MESSAGE_CHARS)
    return RunResult(result.run_id, False, b"", text, "fatal", False, text, code="bad_output", attempt=result.attempt)


def _is_shallow(text: bytes, value: Any) -> bool:
    """Whether a value, whose JSON is `text`, has at most `MAX_DEPTH` levels of lists and objects."""
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return True
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [item for found in level for item in _below(found)]
        if not level:
            return True
    return False


def _below(value: Any) -> list[Any]:
    """The lists and objects in a value."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [item for item in items if isinstance(item, (dict, list))]
