"""Follows a run's events across lost connections and server restarts, and extracts the items that a function streams.

Events come as NDJSON, each with an `id` if it has a number. An interrupted stream is requested again with
`Last-Event-ID`, so that nothing is missed and nothing comes twice. Items are stricter than events: an item given to the
caller is never taken back. When another attempt begins, its items must repeat the earlier ones, and only later ones are
passed on. If they differ, that is an error.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, cast

import msgspec

from gen_worker.client.answers import State, refusal, result_of, state_of, unexpected
from gen_worker.client.effects import Answer, Close, Effect, Flow, Give, LostError, read
from gen_worker.client.errors import EventsLostError
from gen_worker.client.flows import WAIT_S, Begun, Flows, run_path
from gen_worker.client.tries import open_stream
from gen_worker.client.values import RunEvent

SILENCE_S = 45.0  # servers send something every 15 s
NDJSON = "application/x-ndjson"


class Told(msgspec.Struct, frozen=True):
    """One line of a stream. The dev runner numbers events by integers, the platform by `<attempt>-<number>`."""

    event: str
    data: msgspec.Raw = msgspec.Raw(b"null")
    id: str | int = ""

    def decoded(self) -> RunEvent:
        return RunEvent(str(self.id), self.event, msgspec.json.decode(self.data))


_told = msgspec.json.Decoder(Told).decode


def call_events(flows: Flows, begun: Begun) -> Flow[State]:
    """Create a run and yield its events; returns the run at its end."""
    answer = yield from flows.to_function(begun, {"accept": NDJSON}, SILENCE_S, stream=True)
    begun.run_id = answer.headers.get("x-run-id", "")
    return (yield from _follow(flows, answer, begun.run_id, ""))


def made(flows: Flows, begun: Begun, on_event: Callable[[RunEvent], object] | None) -> Flow[State]:
    """Create a run and wait for it: with `on_event` to its end; otherwise as long as one request waits."""
    if on_event is None:
        return (yield from flows.create(begun, wait_s=WAIT_S))
    return (yield from watched(call_events(flows, begun), on_event))


def events(flows: Flows, run_id: str, after: str = "") -> Flow[State]:
    """Yield a run's events after the event `after`; returns the run at its end."""
    answer = yield from _events_after(flows, run_id, after)
    return (yield from _follow(flows, answer, run_id, after))


def items(told: Flow[State]) -> Flow[State]:
    """Yield only the items among the events, as JSON; returns the run at its end."""
    given = _Items()

    def pick(value: Told) -> Iterator[Effect]:
        item = given.take(value)
        if item is not None:
            yield Give(item)

    return (yield from _instead_of_gives(told, pick))


def watched(told: Flow[State], on_event: Callable[[RunEvent], object]) -> Flow[State]:
    """Pass the events to `on_event`; returns the run at its end."""

    def show(value: Told) -> Iterator[Effect]:
        on_event(value.decoded())
        return iter(())

    return (yield from _instead_of_gives(told, show))


def whole_result(flows: Flows, state: State) -> Flow[State]:
    """The run at its end with its output: for a function that streams, the list of its items. `RunError` if it did not succeed."""
    state = result_of((yield from flows.finished(state)))
    if state.has_output:
        return state
    gathered: list[bytes] = []

    def keep(value: msgspec.Raw) -> Iterator[Effect]:
        gathered.append(bytes(value))
        return iter(())

    yield from _instead_of_gives(items(events(flows, state.run.id)), keep)
    return state.with_output(b"[" + b",".join(gathered) + b"]")


def _instead_of_gives(flow: Flow[State], handle: Callable[[Any], Iterator[Effect]]) -> Flow[State]:
    """A flow that calls `handle` with each value instead of yielding it."""
    try:
        effect = next(flow)
        while True:
            if isinstance(effect, Give):
                yield from handle(effect.value)
                effect = next(flow)
                continue
            try:
                reply = yield effect
            except LostError as lost:
                effect = flow.throw(lost)
            else:
                effect = flow.send(reply)
    except StopIteration as stop:
        return cast(State, stop.value)
    finally:
        flow.close()


class _Items:
    """Decides which items are new to the caller."""

    def __init__(self) -> None:
        self._given: list[bytes] = []  # digests of the items that the caller has
        self._place = 0  # position in the current attempt

    def take(self, told: Told) -> msgspec.Raw | None:
        """The new item in an event, None if there is none; `EventsLostError`."""
        if told.event == "restart":
            self._place = 0
        elif told.event == "snapshot":
            missed = msgspec.json.decode(told.data)
            raise EventsLostError(
                f"{missed.get('missed', 'some')} events of this run are no longer kept, possibly including items",
                code="events_lost",
                run_id=str((missed.get("run") or {}).get("id", "")),
                hint="read the stream while the run is working, or let the function save its output as a file",
            )
        elif told.event == "output":
            digest = hashlib.blake2b(told.data, digest_size=8).digest()
            place, self._place = self._place, self._place + 1
            if place == len(self._given):
                self._given.append(digest)
                return told.data
            if self._given[place] != digest:
                raise EventsLostError(
                    f"the run was restarted, and its item {place} is another one now than the one that was given before",
                    code="stream_restarted",
                    hint="follow it with events(), where `restart` means that items start over; or run it again",
                )
        return None


def _follow(flows: Flows, answer: Answer, run_id: str, after: str) -> Flow[State]:
    tries = flows.patience.tries(following=True)
    while True:
        if answer.status == 204:  # all events were seen: only the end is missing
            return (yield from flows.finished((yield from flows.get(run_id))))
        if not 200 <= answer.status < 300:
            raise refusal(answer)
        ended = LostError("the stream ended before its run did", sent=True)
        lines = _Lines()
        try:
            if not answer.headers.get("content-type", "").startswith(NDJSON):
                raise unexpected(Answer(answer.status, answer.headers, (yield from read())), "events as NDJSON")
            while data := (yield from read()):
                for told in lines.take(data):
                    tries.succeeded()
                    after = str(told.id) or after
                    yield Give(told)
                    if told.event == "done":
                        yield Close()
                        return state_of(told.data)
        except LostError as lost:
            ended = lost
        yield Close()
        why = f"run {run_id}: {ended.why}, and it could not be resumed"
        yield from tries.lost(LostError(why, sent=True, silent=ended.silent))
        answer = yield from _events_after(flows, run_id, after)


class _Lines:
    """Assembles lines from pieces that end anywhere. A long line is joined once, not at every piece."""

    def __init__(self) -> None:
        self._begun: list[bytes] = []

    def take(self, data: bytes) -> Iterator[Told]:
        """The events whose lines these bytes complete; `LostError` for an invalid line."""
        head, *rest = data.split(b"\n")
        self._begun.append(head)
        for following in rest:
            line = b"".join(self._begun)
            self._begun = [following]
            if line.strip():
                yield self._told(line)

    def _told(self, line: bytes) -> Told:
        try:
            return _told(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise LostError(f"the stream contains a line that is not an event ({exc})", sent=True) from None


def _events_after(flows: Flows, run_id: str, after: str) -> Flow[Answer]:
    headers = {"accept": NDJSON} | ({"last-event-id": after} if after else {})
    request = flows.request("GET", f"{run_path(run_id)}/events", headers, read_timeout_s=SILENCE_S)
    return (yield from open_stream(request, flows.patience, following=True))
