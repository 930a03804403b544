"""Streams a run's events as server-sent events or NDJSON, from any event on and across restarts; also a run's single output file.

A reader whose position is no longer stored gets `snapshot` first.
A reader that resumes gets what it missed from the store, then live events. The store has everything that was confirmed to the worker, and
the worker sends the rest again, so the numbers `<attempt>-<number>` have no gap.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import msgspec

from gen_orchestrator.api import run_object as shown
from gen_orchestrator.api.blob_bodies import not_read, send_blob
from gen_orchestrator.domain.runs import Run, RunState
from gen_orchestrator.hub.files import RunFiles
from gen_orchestrator.scheduling.feed import Entry, decode_entries, event_id, parse_event_id
from gen_orchestrator.scheduling.heard import is_session
from gen_orchestrator.scheduling.open_run import OpenRun
from gen_orchestrator.store.base import RunStore
from gen_worker.http import sse
from gen_worker.http.asgi import Request, RequestError
from gen_worker.http.headers import asks_for, preferred

NDJSON = b"application/x-ndjson"
MAX_LIFE_S = 24 * 3600.0
MAX_OUTPUTS_BYTES = 8 << 20  # of the items of a stream in a run's JSON
_encode = msgspec.json.Encoder().encode


class RunStreams:
    """Follows runs for HTTP readers."""

    def __init__(self, store: RunStore, files: RunFiles, objects: shown.RunObjects) -> None:
        self._store = store
        self._files = files
        self._objects = objects

    async def follow(self, request: Request, run: Run, open_run: OpenRun | None, headers: Mapping[str, str] | None = None) -> None:
        """Stream the events of a run until its end, or until the reader leaves."""
        try:
            cursor = parse_event_id(request.header(b"last-event-id") or request.query().get("after", ""))
        except ValueError as exc:
            raise RequestError(400, "validation", str(exc)) from None
        ndjson = preferred(request.header(b"accept"), ("application/x-ndjson", "text/event-stream")) == "application/x-ndjson"
        writer = _Writer(request, run, open_run, self._objects, ndjson=ndjson, cursor=cursor)
        await request.start(NDJSON if ndjson else sse.MEDIA_TYPE, {"x-run-id": run.id, "location": f"/v1/runs/{run.id}", **(headers or {})})
        if request.scope["method"] == "HEAD":
            await writer.cut()
            return
        gone: asyncio.Future[None] = asyncio.ensure_future(request.left())
        try:
            if open_run is None or open_run.feed.dropped:
                await writer.entries(await asyncio.to_thread(self._stored, run.id))
            if open_run is not None:
                run = await self._live(writer, open_run, gone)
            if not gone.done():
                await (writer.done(run) if run.is_final else writer.cut())
        finally:
            gone.cancel()

    async def send_only_file(self, request: Request, run: Run, accept: str, headers: Mapping[str, str]) -> bool:
        """Answer with the run's only output file if the caller accepts its type; whether it did."""
        if run.state is not RunState.SUCCEEDED or not run.output:
            return False
        found = shown.files_of(run)
        if len(found) != 1:
            return False
        kind = str(found[0].get("mime_type") or "")
        if not kind or not asks_for(accept, kind):
            return False
        try:
            kept = await asyncio.to_thread(self._files.find, run.owner, found[0]["ref"])
        except OSError as exc:
            raise not_read(exc, None, self._files.blobs) from None
        if kept is None:
            return False
        own = {"content-type": kind, "x-run-id": run.id, "x-content-type-options": "nosniff", "vary": "accept"}
        await send_blob(request, self._files.blobs, kept, {**headers, **own})
        return True

    async def outputs(self, run: Run, open_run: OpenRun | None) -> shown.Outputs:
        """The items that a run has streamed, once it has succeeded. None when they have more than 8 MiB together (its
        events have them all), and for other functions.
        """
        if run.state is not RunState.SUCCEEDED or run.output or is_session(run):
            return None
        if open_run is not None and not open_run.feed.dropped:
            return _items(open_run.feed.after((0, 0)), run.attempt)
        return await asyncio.to_thread(self._stored_items, run)

    def _stored_items(self, run: Run) -> shown.Outputs:
        chunks = [chunk.events for chunk in self._store.events_of(run.id) if chunk.attempt == run.attempt]
        return None if sum(map(len, chunks)) > MAX_OUTPUTS_BYTES else _items(decode_entries(iter(chunks)), run.attempt)

    def _stored(self, run_id: str) -> list[Entry]:
        return decode_entries(chunk.events for chunk in self._store.events_of(run_id))

    async def _live(self, writer: "_Writer", open_run: OpenRun, gone: "asyncio.Future[None]") -> Run:
        feed = open_run.feed
        told = -1
        while not gone.done():
            if told != feed.status_changes and not open_run.is_over:
                told = feed.status_changes
                await writer.status(open_run)
            fresh = feed.after(writer.cursor)
            if fresh:
                await writer.entries(fresh)
            elif feed.sealed or feed.cut:
                break
            elif told == feed.status_changes:
                waiting = asyncio.ensure_future(feed.wait(sse.HEARTBEAT_S))
                either: list[asyncio.Future[Any]] = [waiting, gone]
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if not waiting.done():
                    waiting.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await waiting
                elif not waiting.result():
                    await writer.heartbeat()
        return open_run.run


def _items(entries: list[Entry], attempt: int) -> list[msgspec.Raw]:
    return [entry.data for entry in entries if entry.name == "output" and entry.attempt == attempt]


class _Writer:
    """Writes events in the format of a stream."""

    def __init__(
        self,
        request: Request,
        run: Run,
        open_run: OpenRun | None,
        objects: shown.RunObjects,
        *,
        ndjson: bool,
        cursor: tuple[int, int],
    ) -> None:
        self._request = request
        self._run = run
        self._open_run = open_run
        self._objects = objects
        self._ndjson = ndjson
        self.cursor = cursor

    async def entries(self, entries: list[Entry]) -> None:
        pieces: list[bytes] = []
        for entry in entries:
            place = (entry.attempt, entry.seq)
            if place <= self.cursor:
                continue
            is_next_attempt = entry.attempt != self.cursor[0]
            if self.cursor[0] and is_next_attempt:
                pieces.append(self._frame("", "restart", _encode({"attempt": entry.attempt})))
            missed = entry.seq - 1 - (0 if is_next_attempt else self.cursor[1])
            if missed:
                pieces.append(self._frame("", "snapshot", self._snapshot(entry, missed)))
            self.cursor = place
            if entry.name == "output" and not self._ndjson:  # written out, because it is the most frequent case by far
                pieces.append(b"id: %d-%d\nevent: output\ndata: %b\n\n" % (entry.attempt, entry.seq, entry.data))
                continue
            data = bytes(entry.data) if entry.name != "custom" else _encode({"event_type": entry.type, "payload": entry.data})
            pieces.append(self._frame(event_id(entry), entry.name, data))
        if pieces:
            await self._request.write(b"".join(pieces))

    def _snapshot(self, entry: Entry, missed: int) -> bytes:
        """For a reader whose position is gone: the run's current state, and how many events before the next one are no longer kept."""
        run = self._open_run.run if self._open_run is not None else self._run
        return b'{"missed":%d,"next":"%b","run":%b}' % (missed, event_id(entry).encode(), self._objects.json(run, self._open_run))

    async def status(self, open_run: OpenRun) -> None:
        body = {
            "run_id": open_run.id,
            "status": open_run.status,
            "attempt": open_run.run.attempt,
            "worker_id": open_run.run.worker_id or None,
        }
        await self._request.write(self._frame("", "status", _encode(body)))

    async def done(self, run: Run) -> None:
        end = b""
        if run.error is not None:
            end = self._frame("", "error", _encode(shown.problem_of(run.error, run.id)))
        await self._request.write(end + self._frame("", "done", self._objects.json(run)), last=True)

    async def cut(self) -> None:
        """End the stream before its run's end: the reader resumes with its last number."""
        await self._request.write(b"", last=True)

    async def heartbeat(self) -> None:
        await self._request.write(b"\n" if self._ndjson else sse.HEARTBEAT)

    def _frame(self, place: str, name: str, data: bytes) -> bytes:
        if self._ndjson:
            ident = b'"id":"%b",' % place.encode() if place else b""
            return b'{%b"event":"%b","data":%b}\n' % (ident, name.encode(), data)
        ident = b"id: %b\n" % place.encode() if place else b""
        return b"%bevent: %b\ndata: %b\n\n" % (ident, name.encode(), data)
