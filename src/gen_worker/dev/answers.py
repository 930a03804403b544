"""The dev runner's answers about a run: the contract's body, the run object, lines of an event stream."""

from typing import Any
from urllib.parse import quote

import msgspec

from gen_worker.authoring.assets import Asset
from gen_worker.clock import utc_text
from gen_worker.contract.problem import Problem
from gen_worker.contract.runner import RunAnswer, RunnerRun, Timing
from gen_worker.dev.runs import DevRun, EarlyRecord
from gen_worker.events import OUTPUT_DELTA, RunEvent, is_machinery, stream_name
from gen_worker.http.phrases import PHRASES
from gen_worker.http.problems import status_of
from gen_worker.http.sse import frame
from gen_worker.outcome import Outcome

# Keys in sorted order, as the contract requires; Structs keep the order of their fields.
_encode = msgspec.json.Encoder().encode
_NULL = msgspec.Raw(b"null")


def run_answer(run: DevRun, *, as_list: bool = False) -> bytes:
    """The contract's body of a finished run.

    The items of a stream are the list `outputs`. The contract has null as `output` there; a client that asks for
    `application/json` by name (`as_list`) gets the list as `output`, too.
    """
    outcome = run.outcome
    assert outcome is not None
    answer = _answer(run, outcome, run.log.as_json(), run.finished_s)
    if not outcome.success:
        answer.code, answer.errors, answer.retryable = outcome.code, outcome.errors, outcome.retryable
    if run.streamed:
        answer.outputs = [event.payload for event in run.log.after(0)[1] if event.event_type == OUTPUT_DELTA]
        if as_list:
            answer.output = answer.outputs
    answer.warnings = run.warnings
    if run.files:
        answer.files = [file_json(asset) for asset in run.files]
    return _encode(answer)


def early_answer(run: DevRun, outcome: Outcome, early: EarlyRecord) -> bytes:
    """Like `run_answer`, for a successful run with neither files nor deltas, before its end is recorded. From any thread."""
    answer = _answer(run, outcome, early.events_json, early.finished_s)
    answer.warnings = run.warnings
    return _encode(answer)


def _answer(run: DevRun, outcome: Outcome, events_json: bytes, finished_s: float | None) -> RunAnswer:
    return RunAnswer(
        outcome.error_message,
        outcome.error_type,
        msgspec.Raw(events_json),
        _output(outcome),
        run.run_id,
        outcome.safe_message,
        outcome.success,
        Timing(_ms(run.created_s, finished_s)),
    )


def http_status(outcome: Outcome) -> int:
    return 200 if outcome.success else status_of(outcome.code, outcome.error_type)


def run_object(run: DevRun) -> RunnerRun:
    """The run's current state."""
    outcome = run.outcome
    timings = {"queued_ms": _ms(run.created_s, run.started_s)} if run.started_s else {}
    if run.finished_s:
        timings["total_ms"] = _ms(run.created_s, run.finished_s)
    return RunnerRun(
        id=run.run_id,
        status=run.status,
        function=run.function,
        output=_output(outcome) if outcome else None,
        events_url=f"/v1/runs/{run.run_id}/events",
        created_at=_time(run.created_s) or "",
        timings=timings,
        progress=run.progress,
        usage=run.usage,
        error=_problem(run, outcome) if outcome and not outcome.success else None,
        files=[file_json(asset) for asset in run.files],
        started_at=_time(run.started_s),
        finished_at=_time(run.finished_s),
        warnings=run.warnings,
    )


def run_object_json(run: DevRun) -> bytes:
    return _encode(run_object(run))


def sse_frames(first_seq: int, found: list[RunEvent], *, every: bool) -> bytes:
    """Events of a run as server-sent events, in one piece. Without `every`, our internal steps and their numbers are left out."""
    return b"".join(
        [
            b"id: %d\nevent: output\ndata: %b\n\n" % (seq, event.payload)  # written out, because it is the most frequent case by far
            if event.event_type == OUTPUT_DELTA
            else frame(seq, *_named(event))
            for seq, event in enumerate(found, first_seq)
            if every or not is_machinery(event.event_type)
        ]
    )


def sse_done(run: DevRun) -> bytes:
    return frame(run.log.last_seq + 1, "done", run_object_json(run))


def ndjson_lines(first_seq: int, found: list[RunEvent], *, every: bool) -> bytes:
    """Like `sse_frames`, as lines of JSON: `{"id", "event", "data"}`."""
    shown = [(seq, event) for seq, event in enumerate(found, first_seq) if every or not is_machinery(event.event_type)]
    return b"".join([_line(seq, *_named(event)) for seq, event in shown])


def ndjson_done(run: DevRun) -> bytes:
    return _line(run.log.last_seq + 1, "done", run_object_json(run))


def file_json(asset: Asset) -> dict[str, Any]:
    """A saved file with its URL."""
    return {**msgspec.to_builtins(asset), "local_path": asset.local_path, "url": f"/v1/files/{quote(asset.ref)}"}


def _named(event: RunEvent) -> tuple[str, bytes]:
    name = stream_name(event.event_type)
    if isinstance(event.payload, msgspec.Raw) and name in ("output", "progress", "log"):
        return name, bytes(event.payload)
    if name == "error":
        return name, _encode(event.payload)
    return name, _encode({"event_type": event.event_type, "payload": event.payload})


def _line(seq: int, name: str, data: bytes) -> bytes:
    return b'{"id":%d,"event":"%b","data":%b}\n' % (seq, name.encode(), data)


def _output(outcome: Outcome) -> msgspec.Raw:
    return msgspec.Raw(outcome.output) if outcome.output else _NULL


def _problem(run: DevRun, outcome: Outcome) -> Problem:
    status = http_status(outcome)
    return Problem(
        title=PHRASES[status],
        status=status,
        detail=outcome.safe_message,
        code=outcome.code,
        retryable=outcome.retryable,
        run_id=run.run_id,
        errors=outcome.errors,
        # A developer of the function may see the class and the author's line; `detail` is what a caller of the platform would see.
        hint=None if outcome.error_message.endswith(outcome.safe_message) else outcome.error_message,
    )


def _ms(since_s: float | None, until_s: float | None) -> int:
    return round(((until_s or 0) - (since_s or 0)) * 1000)


def _time(unix_s: float | None) -> str | None:
    return None if unix_s is None else utc_text(unix_s)
