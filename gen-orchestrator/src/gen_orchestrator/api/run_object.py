"""A run as the API shows it: from the store and, while the run is open, from the leader's memory."""

import mimetypes
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import msgspec

from gen_orchestrator.domain.receipts import NANO
from gen_orchestrator.domain.runs import Run, RunError, RunState
from gen_orchestrator.hub.signed_urls import SignedUrls
from gen_orchestrator.scheduling.heard import RunMetrics, metrics_in, output_in
from gen_orchestrator.scheduling.open_run import OpenRun
from gen_orchestrator.scheduling.waits import Wait
from gen_worker.clock import utc_text
from gen_worker.contract.problem import Problem
from gen_worker.contract.run import RunObject, RunReceipt, RunTimings, Usage
from gen_worker.files.local_outputs import normalize_output_ref
from gen_worker.http.phrases import PHRASES
from gen_worker.http.problems import status_of

_ASSET_FIELDS = frozenset({"ref", "owner", "local_path", "mime_type", "size_bytes", "sha256"})
FILE_URL_LIFE_S = 24 * 3600
_encode = msgspec.json.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


FileUrl = Callable[[str, str], dict[str, str]]
Outputs = list[msgspec.Raw] | None


def plain_url(owner: str, ref: str) -> dict[str, str]:
    """The URL of a file for callers with a key."""
    return {"url": f"/v1/files/{owner}/{quote(ref)}"}


def signed_url(urls: SignedUrls) -> FileUrl:
    """URLs that work without a key for a day, with their expiry. They stay the same for an hour, and so does a run's ETag."""

    def url_of(owner: str, ref: str) -> dict[str, str]:
        path, until = urls.lasting_path(f"/v1/files/{owner}/{ref}", FILE_URL_LIFE_S)
        return {"url": path, "expires_at": utc_text(until)}

    return url_of


class RunObjects:
    """Shows runs as JSON. `url_of` returns the URL fields of an output file."""

    def __init__(self, url_of: FileUrl = plain_url) -> None:
        self._url_of = url_of

    def of(
        self, run: Run, open_run: OpenRun | None = None, *, with_input: bool = False, wait: Wait | None = None, outputs: Outputs = None
    ) -> RunObject:
        """The run's current state. `with_input`: with its payload, for a request of a single run; `wait`: what it waits for;
        `outputs`: what it has streamed.
        """
        return _run_object(run, open_run, self._url_of, with_input=with_input, wait=wait, outputs=outputs)

    def json(
        self, run: Run, open_run: OpenRun | None = None, *, with_input: bool = False, wait: Wait | None = None, outputs: Outputs = None
    ) -> bytes:
        """The same, encoded."""
        return _encode(self.of(run, open_run, with_input=with_input, wait=wait, outputs=outputs))


def _run_object(run: Run, open_run: OpenRun | None, url_of: FileUrl, *, with_input: bool, wait: Wait | None, outputs: Outputs) -> RunObject:
    metrics = metrics_in(run.metrics)
    models = bytes(metrics.models)
    warnings = run.warnings or (open_run.warnings if open_run is not None else b"")
    return RunObject(
        id=run.id,
        status=open_run.status if open_run is not None and not run.is_final else public_status(run),  # type: ignore[arg-type]
        owner=run.owner,
        endpoint=run.endpoint,
        function=run.function,
        tag=run.tag,
        release_id=run.release_id,
        attempt=run.attempt,
        created_at=utc_text(run.created_at),
        events_url=f"/v1/runs/{run.id}/events",
        output=output_in(run.output),
        outputs=outputs,
        files=[{**asset, **url_of(run.owner, asset["ref"])} for asset in files_of(run)] or None,
        error=problem_of(run.error, run.id) if run.error is not None else None,
        worker_id=run.worker_id or None,
        progress=open_run.feed.progress if open_run is not None else None,
        input=_decode(run.payload) if with_input else None,
        models=msgspec.Raw(models) if models not in (b"null", b"[]") else None,
        timings=_timings(run, metrics),
        usage=_usage(metrics),
        session=open_run.session.facts if open_run is not None and open_run.session is not None else metrics.session,
        receipt=receipt_of(run) if run.is_final else None,
        routing=wait if wait is not None else msgspec.Raw(run.routing) if run.routing else None,
        parent_id=run.parent_id or None,
        invoker_id=run.invoker_id or None,
        warnings=msgspec.Raw(warnings) if warnings else None,
        stuck=msgspec.Raw(open_run.stuck) if open_run is not None and open_run.stuck else None,
        started_at=utc_text(run.started_at) if run.started_at else None,
        finished_at=utc_text(run.finished_at) if run.finished_at else None,
    )


def public_status(run: Run) -> str:
    """The status of a run that is only known from the store."""
    return "starting" if run.state is RunState.LEASED else str(run.state)


def http_status(run: Run) -> int:
    """The HTTP status for a caller who waited for this run."""
    if run.state is RunState.SUCCEEDED:
        return 200
    if run.state is RunState.EXPIRED:
        return 504
    return status_of(run.error.code, run.error.error_type) if run.error is not None else 500


def problem_of(error: RunError, run_id: str) -> Problem:
    """A failed run's error, as the caller may see it."""
    status = 504 if error.code == "expired" else status_of(error.code, error.error_type)
    return Problem(
        title=PHRASES[status],
        status=status,
        detail=error.message,
        code=error.code,
        retryable=error.retryable,
        run_id=run_id,
        errors=error.errors,
    )


def _timings(run: Run, metrics: RunMetrics) -> RunTimings:
    # Never negative: the wall clock may have been set between two of these times.
    return RunTimings(
        queued_ms=max(0, round((run.started_at - run.created_at) * 1000)) if run.started_at else None,
        model_ms=metrics.gpu_load_ms,
        inference_ms=metrics.inference_ms,
        upload_ms=metrics.upload_ms,
        total_ms=max(0, round((run.finished_at - run.created_at) * 1000)) if run.finished_at else None,
    )


def _usage(metrics: RunMetrics) -> Usage | None:
    if metrics.input_tokens is None and metrics.output_tokens is None:
        return None
    return Usage(max(0, metrics.input_tokens or 0), max(0, metrics.output_tokens or 0))


def receipt_of(run: Run) -> RunReceipt:
    """What a finished run used."""
    total_ms = (run.finished_at - run.created_at) * 1000
    return RunReceipt(
        gpu_seconds=run.gpu_ms / 1000,
        cpu_seconds=run.cpu_ms / 1000,
        cold_seconds=run.cold_ms / 1000,
        cold_share=round(min(1.0, run.cold_ms / total_ms), 4) if total_ms > 0 else 0.0,
        downloaded_bytes=run.downloaded_bytes,
        loaded_bytes=run.loaded_bytes,
        attempts=run.executions,
        cost=run.cost_nanos / NANO if run.cost_nanos >= 0 else None,
    )


def files_of(run: Run) -> list[dict[str, Any]]:
    """The files named in a run's output: each `Asset`, and each text that is a path in the run's own folder.

    Functions return `asset` or `asset.ref`; for the second, the text is all that a caller gets.
    """
    own = f"runs/{run.id}/"
    if b"\xa3ref" not in run.output and own.encode() not in run.output:  # true for most runs
        return []
    found = {asset["ref"]: asset for asset in _named(output_in(run.output), own)}
    return list(found.values())


def _named(value: object, own: str) -> Iterator[dict[str, Any]]:
    if isinstance(value, str):
        if value.startswith(own) and _is_ref(value):
            yield {"ref": value, "mime_type": mimetypes.guess_type(value)[0] or "application/octet-stream"}
        return
    if isinstance(value, dict):
        if isinstance(value.get("ref"), str) and value.keys() <= _ASSET_FIELDS:
            yield value
            return
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _named(each, own)


def _is_ref(text: str) -> bool:
    """Whether this is a saved file's ref, not a sentence that begins like one."""
    try:
        return normalize_output_ref(text) == text
    except ValueError:
        return False
