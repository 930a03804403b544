"""Keeps a stream to the scheduler: dials, registers, serves, backs off, follows the leader."""

import asyncio
import random
import time
from collections.abc import Iterable

import msgspec

from gen_worker.events import EVENTS_SHED, OUTPUT_EVENTS
from gen_worker.log import Log
from gen_worker.runtime.connection_parts import (
    Apply,
    ClosableStream,
    ConnectionPolicy,
    Dialer,
    IncompatibleSchedulerError,
    Observer,
    Register,
    UnreachableError,
)
from gen_worker.runtime.identity import Identity
from gen_worker.runtime.seeds import Seeds
from gen_worker.transport.stream import Ended, Lost, Moved, Refused, StreamOverError, TooLarge
from gen_worker.wire import codec
from gen_worker.wire.messages import Event, Registration, Single
from gen_worker.wire.outbox import MAX_MESSAGES, Outbox
from gen_worker.wire.worker_session import Ignored, Peer, WorkerSession

PLAIN_AFTER_S = 0.25  # after this long without a Hello, the scheduler is taken to have no extensions until it says otherwise
# The longer time after a scheduler that had extensions. This one is most likely a standby node, which holds the stream
# until a node leads (15 s at most). Messages to a plain scheduler count as delivered, and a standby would lose them.
PLAIN_AGAIN_S = 20.0
STABLE_S = 1.0  # a stream that lived this long was a success: the next failure counts as the first
LINGER_S = 0.002  # events wait this long for others to travel with
ANSWER_TIMEOUT_S = 5.0  # after a heartbeat. With heartbeats every 10 s, a half-open connection is noticed within 15 s
ANSWER_LOOKS = 10
SURELY_TAKEN_BYTES = 1 << 20  # every scheduler accepts messages of this size
FLUSH_TIMEOUT_S = 5.0
FLUSH_LOOK_S = 0.01
CLOSE_TIMEOUT_S = 1.0
HURRIED_DELAY_S = 0.2
SEND_BYTES = 256 << 10


class Connection:
    """The one connection to the scheduler. Messages wait in the outbox until a stream can carry them."""

    def __init__(
        self,
        dialer: Dialer,
        seeds: Seeds,
        identity: Identity,
        outbox: Outbox,
        policy: ConnectionPolicy,
        register: Register,
        apply: Apply,
        observer: Observer,
        log: Log,
    ) -> None:
        self.session: WorkerSession | None = None
        self.outbox = outbox
        self._dialer = dialer
        self._seeds = seeds
        self._identity = identity
        self._policy = policy
        self._register = register
        self._apply = apply
        self._observer = observer
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._lingering: asyncio.TimerHandle | None = None
        self._heartbeat_due = False
        self._shed_reported = 0
        self._heard = asyncio.Event()
        self._largest_bytes = 0  # of the largest message sent on this stream
        self._registered: Registration | None = None  # as last sent
        self._lost_by_peer = False
        self._knew_extensions = False  # whether some scheduler of this worker had extensions
        self._up = False
        self._in_hurry = asyncio.Event()
        self._stream: ClosableStream | None = None
        self._over = asyncio.Event()
        self._random = random.Random()  # noqa: S311 - spreads reconnects

    def say(self, message: Single) -> None:
        """Send a message, now or on a later stream."""
        self.outbox.put(message)
        self._news.set()

    def say_event(self, event: Event) -> None:
        """Send an event with the next message, within two milliseconds; shed when far too many wait."""
        self.say_events((event,))

    def say_events(self, events: Iterable[Event]) -> None:
        """Like `say_event` for several events, in order. Output of a run must arrive, and is sent now."""
        outbox, goes_now = self.outbox, False
        for event in events:
            if event.event_type in OUTPUT_EVENTS:
                outbox.put(event)
                goes_now = True
            else:
                outbox.put_event(event)
        if goes_now:
            self._news.set()
        elif self._lingering is None:
            self._lingering = self._loop.call_later(LINGER_S, self._news.set)

    def refresh(self) -> None:
        """Send a heartbeat now, because something in it has changed."""
        self._heartbeat_due = True
        self._news.set()

    async def hold(self) -> None:
        """Keep a stream up until cancelled. Raises `IncompatibleSchedulerError`, or `UnreachableError` after the allowed rounds."""
        failed_rounds = short_streams = 0
        came_up = False  # whether a stream came up in this round
        while True:
            address = self._seeds.next()
            if address is None:
                if not came_up:
                    failed_rounds += 1
                    if 0 < self._policy.max_rounds <= failed_rounds:
                        raise UnreachableError(f"no scheduler in {failed_rounds} rounds over {', '.join(self._seeds.known())}")
                    await self._pause(self._policy.backoff.delay_s(failed_rounds, self._random))
                came_up = False
                self._seeds.new_round()
                continue
            secure = self._seeds.must_be_secure(address) or self._dialer.is_secure(address)
            began_s = time.monotonic()
            ended = await self._one_session(address, secure)
            lived = self._up and time.monotonic() - began_s >= STABLE_S
            if lived:
                failed_rounds = short_streams = 0
                self._seeds.new_round(first=address)
            elif isinstance(ended, (Lost, TooLarge)) and (self._up or (isinstance(ended, Lost) and ended.clean)):
                # There is a scheduler, and it may have asked for this: do not wait as long as for one that is absent.
                # The round goes on, so that a scheduler that ends every stream does not keep us from the others.
                failed_rounds, came_up = 0, True
                short_streams += 1
            if isinstance(ended, (Lost, TooLarge)) and (lived or came_up):
                await self._pause(self._policy.backoff.redial_s(short_streams, self._random))
            match ended:
                case Refused(detail):
                    self._observer.incompatible(address, detail)
                    raise IncompatibleSchedulerError(detail)
                case Moved(leader):
                    self._log.info("scheduler.moved", address=address, leader=leader)
                    self._seeds.hint(leader, secure=secure)
                case Lost() | TooLarge():
                    pass

    def hurry(self) -> None:
        """The worker is about to end: do not wait long before dialling again."""
        self._in_hurry.set()

    async def flush(self, timeout_s: float = FLUSH_TIMEOUT_S) -> bool:
        """Wait until every result was sent, and acknowledged if the scheduler does that; False when time ran out."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.outbox.unconfirmed_results or (self._stream is not None and len(self.outbox)):
                    self._news.set()
                    await asyncio.sleep(FLUSH_LOOK_S)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """End the stream cleanly."""
        if self._stream is None:
            return
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._stream.close_sending()
                await self._over.wait()
        except TimeoutError:
            return

    @property
    def has_credit(self) -> bool:
        """Whether the scheduler counts frames of realtime sessions."""
        return self.session is not None and self.session.has_credit

    @property
    def has_window(self) -> bool:
        """Whether frames of realtime sessions need credits in both directions."""
        return self.session is not None and self.session.has_window

    @property
    def wants_few_events(self) -> bool:
        """Whether the scheduler does not need the events that every run has."""
        return self.session is not None and self.session.wants_few_events

    async def _pause(self, delay_s: float) -> None:
        try:
            async with asyncio.timeout(delay_s):
                await self._in_hurry.wait()
        except TimeoutError:
            return
        await asyncio.sleep(min(delay_s, HURRIED_DELAY_S))

    async def _one_session(self, address: str, secure: bool) -> Ended:
        self._up = False
        self._observer.connecting(address)
        try:
            async with self._dialer.dial(address, self._identity.token, secure=secure) as stream:
                ended = await self._serve(stream, address)
        except ConnectionError as exc:
            ended = Lost(str(exc))
        if self._up:
            self._observer.lost(address, _shown(ended))
        else:
            self._observer.connect_failed(address, _shown(ended))
        return ended

    async def _serve(self, stream: ClosableStream, address: str) -> Ended:
        session = self.session = WorkerSession(self.outbox, lost_by_peer=self._lost_by_peer)
        self._lost_by_peer = False
        self._largest_bytes = 0
        self._over.clear()
        try:
            await stream.send(self._registration(is_heartbeat=False))
        except StreamOverError:
            # The scheduler ended the stream before it took the first message. The receiving side has the reason.
            while await stream.receive() is not None:
                pass
            return stream.ended
        self._stream = stream
        helpers = [
            asyncio.create_task(self._send(stream, session), name="connection-send"),
            asyncio.create_task(self._beat(session), name="connection-heartbeat"),
        ]
        after_s = PLAIN_AGAIN_S if self._knew_extensions else PLAIN_AFTER_S
        patience = self._loop.call_later(after_s, self._run_out_of_patience, session, address)
        receiving = asyncio.create_task(self._receive(stream, session, address), name="connection-receive")
        try:
            await asyncio.wait([receiving, *helpers], return_when=asyncio.FIRST_COMPLETED)
            if not receiving.done():
                if helpers[1].done():  # the heartbeat gave up on a silent scheduler
                    helpers[1].result()
                    return Lost("the scheduler has not answered heartbeats")
                helpers[0].result()
                # Nothing can be sent any more. The receiving side is about to get the reason.
                await asyncio.wait([receiving], timeout=2)
                if not receiving.done():
                    return Lost("the stream accepts no more messages")
            receiving.result()
            ended = stream.ended
            if isinstance(ended, TooLarge):
                self._lost_by_peer = self._heed_limit(ended)
            else:
                self._lost_by_peer = isinstance(ended, Moved) or (isinstance(ended, Lost) and ended.by_peer)
            return ended
        finally:
            patience.cancel()
            self._knew_extensions = self._knew_extensions or session.peer is Peer.EXTENDED
            self.session = self._stream = None
            self._over.set()
            for task in (receiving, *helpers):
                task.cancel()
            await asyncio.gather(receiving, *helpers, return_exceptions=True)

    def _heed_limit(self, ended: TooLarge) -> bool:
        """The scheduler does not accept a message as large as one of ours: replace the messages that it would refuse
        again by small ones.
        """
        limit_bytes = ended.limit_bytes or (self._largest_bytes if self._largest_bytes > SURELY_TAKEN_BYTES else 0)
        if not limit_bytes:
            return False
        self._log.warning(
            "scheduler.message_too_large", detail=ended.detail, largest_sent_bytes=self._largest_bytes, limit_bytes=limit_bytes
        )
        return self.outbox.limit(limit_bytes)

    async def _receive(self, stream: ClosableStream, session: WorkerSession, address: str) -> None:
        while (data := await stream.receive()) is not None:
            self._heard.set()
            try:
                message = codec.decode(data)
            except codec.CodecError as exc:
                self._log.warning("wire.undecodable", error=str(exc))
                continue
            for effect in session.receive(message, time.monotonic()):
                if isinstance(effect, Ignored):
                    self._log.warning("wire.ignored", message=effect.what)
                else:
                    self._apply(effect)
            if not self._up and session.peer is not Peer.UNKNOWN:
                self._now_up(address)

    async def _send(self, stream: ClosableStream, session: WorkerSession) -> None:
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                if self._lingering is not None:
                    self._lingering.cancel()
                    self._lingering = None
                while self._heartbeat_due or await self._send_waiting(stream, session):
                    if self._heartbeat_due:
                        self._heartbeat_due = False
                        await self._send_registration(stream, session)
        except StreamOverError:
            return

    async def _send_registration(self, stream: ClosableStream, session: WorkerSession) -> None:
        """Send the worker's current state: after everything that was said before, and before everything said from now
        on. Peers rely on the order: they read "the model is ready" and then the list that contains it. While much waits
        on a slow stream, heartbeats repeat the last state sent.
        """
        before, told, data = len(self.outbox), self._registered, self._registration(is_heartbeat=True)
        said_s = time.monotonic()
        while before > 0 and (sent := await self._send_waiting(stream, session, before)):
            before -= sent
            if told is not None and time.monotonic() - said_s >= self._policy.heartbeat_s:
                said_s = time.monotonic()
                await stream.send(codec.encode(msgspec.structs.replace(told, is_heartbeat=True)))
        await stream.send(data)

    async def _send_waiting(self, stream: ClosableStream, session: WorkerSession, most: int = MAX_MESSAGES) -> int:
        """Send one message with at most this many of the waiting ones. Returns how many it carried; 0 when nothing may be sent."""
        out = session.outgoing(SEND_BYTES, most)
        if out is None:
            return 0
        message, taken = out
        data = codec.encode_sendable(message, self._note_unencodable)
        self._largest_bytes = max(self._largest_bytes, len(data))
        await stream.send(data)
        session.sent(taken, time.monotonic())
        return len(taken.messages)

    def _registration(self, *, is_heartbeat: bool) -> bytes:
        """The worker's current state; the last known state if it cannot be determined, because the scheduler must not
        lose a worker over a number.
        """
        try:
            registration = self._register(is_heartbeat)
            data = codec.encode(registration)
        except Exception as exc:
            if self._registered is None:
                raise  # nothing was ever sent: a fault of ours at the start, which ends the worker
            self._log.error("worker.registration_failed", error=f"{type(exc).__name__}: {exc}")
            return codec.encode(msgspec.structs.replace(self._registered, is_heartbeat=is_heartbeat))
        self._registered = registration
        return data

    def _note_unencodable(self, message: Single, error: codec.CodecError) -> None:
        self._log.error("wire.unencodable", message=type(message).__name__, error=str(error))

    async def _beat(self, session: WorkerSession) -> None:
        """Send heartbeats. Returns when a scheduler that answers them, as all with extensions do, has left one unanswered."""
        while True:
            await asyncio.sleep(self._policy.heartbeat_s)
            self._report_shed()
            self._heard.clear()
            self.refresh()
            if session.peer is Peer.EXTENDED and not await self._answered():
                return

    async def _answered(self) -> bool:
        """Whether anything comes from the scheduler in time. Time is counted in checks: while this process is stopped
        or its loop blocked, no check happens, and messages that arrived meanwhile are read before the next one.
        """
        for _ in range(ANSWER_LOOKS):
            try:
                async with asyncio.timeout(ANSWER_TIMEOUT_S / ANSWER_LOOKS):
                    await self._heard.wait()
                return True
            except TimeoutError:
                continue
        return False

    def _report_shed(self) -> None:
        shed = self.outbox.shed - self._shed_reported
        if shed and self.outbox.has_room:
            self._shed_reported += shed
            self._log.warning(EVENTS_SHED, events=shed)
            self.say_event(Event("", EVENTS_SHED, b'{"events":%d}' % shed))

    def _run_out_of_patience(self, session: WorkerSession, address: str) -> None:
        if session is self.session and not self._up:
            session.assume_plain(time.monotonic())
            self._now_up(address)

    def _now_up(self, address: str) -> None:
        self._up = True
        self._observer.registered(address)
        self._news.set()


def _shown(ended: Ended) -> str:
    match ended:
        case Moved(address):
            return f"not the leader; the leader is {address}"
        case Lost(detail) | Refused(detail) | TooLarge(detail):
            return detail
