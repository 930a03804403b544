"""One worker's stream, seen from the scheduler: each message comes in once, commands go out, and nothing is
acknowledged before it was dealt with.

    gRPC server -- ServerStream --> run() ------> take(stream, effect, hold)   the scheduler: looks, decides, stores
    gRPC server <-- ServerStream -- its writer <-- start, interrupt, send, adopt

One task reads and one writes. Neither waits for the scheduler's store. `take` is called on the loop for each effect, in
stream order; it must neither wait nor raise. Work that takes longer calls `hold.take()`, and `hold.release()` when it
is done. Until then the worker keeps the message, and sends it again if this scheduler dies.

Back-pressure: a message that is held is not acknowledged, and a worker with too many unacknowledged messages (4,096
messages or 4 MiB) pauses its output streams. Heartbeats go on and are answered. A worker that speaks plain protocol 1.0
has no acknowledgements: nothing is read from it while more than `MAX_HELD_PLAIN` messages are held. The queue of
messages to the worker is unbounded: the scheduler must not give a worker more runs than it accepts.
"""

import asyncio
from collections.abc import Callable, Mapping

from gen_worker.transport.grpc_server import RejectError, ServerStream
from gen_worker.transport.stream import StreamOverError, not_leader
from gen_worker.wire import codec
from gen_worker.wire.holds import AckGate, GatedMemory, Hold
from gen_worker.wire.messages import REALTIME_CREDIT, REALTIME_WINDOW, Message, Registration, Resources, RunCommand, Single
from gen_worker.wire.scheduler_session import IncompatibleError, ProtocolViolationError, SchedulerEffect, SchedulerSession, WorkerMemory

ACK_DELAY_S = 0.005  # acknowledgements wait this long for others, unless another message carries them
FINISH_TIMEOUT_S = 1.0
SEND_BYTES = 256 << 10
MAX_HELD_PLAIN = 256

Memories = dict[str, WorkerMemory]
Take = Callable[["WorkerStream", SchedulerEffect, Hold], None]


class WorkerStream:
    """A connected worker. Built for each stream by the `serve` of a `GrpcServer`, which then awaits `run`.

    The scheduler keeps `memories` across streams: what is known of each worker process, by its instance id. Without
    `extensions` this is a scheduler of plain protocol 1.0. With `few_events` workers do not report the steps that every
    run takes (`events.TOLD_BY_THE_RESULT`).
    """

    def __init__(self, stream: ServerStream, memories: Memories, *, extensions: bool = True, few_events: bool = False) -> None:
        self._stream = stream
        self._protocol = SchedulerSession(memories, extensions=extensions, few_events=few_events, make_memory=GatedMemory)
        self._room = asyncio.Event()
        self._plain_gate = AckGate(self._room.set)  # for a worker without an instance id: nothing is acknowledged to it
        self._plain_seq = 0
        self._news = asyncio.Event()
        self._ack_timer: asyncio.TimerHandle | None = None
        self._writer: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._closing = False

    # Identity.

    @property
    def token(self) -> str:
        """The bearer token that it presented; empty without one."""
        return self._stream.token

    @property
    def metadata(self) -> Mapping[str, str]:
        return self._stream.metadata

    @property
    def peer(self) -> str:
        """Its address, as gRPC formats it."""
        return self._stream.peer

    @property
    def registration(self) -> Registration | None:
        """Its latest registration or heartbeat; None before the first."""
        return self._protocol.registration

    @property
    def resources(self) -> Resources:
        """What it has and serves, as last reported."""
        return self._protocol.registration.resources if self._protocol.registration is not None else Resources()

    @property
    def run_ids(self) -> frozenset[str]:
        """Runs that it was given and that have no result yet."""
        return frozenset(self._protocol.memory.runs)

    @property
    def memory(self) -> WorkerMemory:
        """What is remembered of this worker process."""
        return self._protocol.memory

    @property
    def counts_frames(self) -> bool:
        """Whether frames of realtime sessions need credits."""
        return REALTIME_CREDIT in self._protocol.extensions

    @property
    def counts_frames_back(self) -> bool:
        """Whether its own frames need credits, too, and credits count bytes."""
        return REALTIME_WINDOW in self._protocol.extensions

    # Messages to the worker.

    def start(self, command: RunCommand) -> None:
        """Give it a run. If this stream loses the command, it is sent again on the next one."""
        self._protocol.start(command)
        self._news.set()

    def adopt(self, command: RunCommand) -> None:
        """It already has this run from an earlier scheduler: accept its result, and do not send the command."""
        self._protocol.memory.runs[command.run_id] = command

    def interrupt(self, run_id: str) -> None:
        """Ask it to stop a run. Ignored for a run that it was not given."""
        self._protocol.interrupt(run_id)
        self._news.set()

    def send(self, message: Single) -> None:
        """Send any other message."""
        self._protocol.send(message)
        self._news.set()

    def close(self, code: str = "OK", details: str = "") -> None:
        """End the stream with a status; the worker dials again."""
        self._stream.end(code, details)

    def redirect(self, address: str) -> None:
        """This scheduler is not the leader: end the stream and name the leader as `host:port`, if known."""
        self.close(*not_leader(address))

    # The life of the stream.

    async def run(self, take: Take) -> None:
        """Serve the stream until it ends. `RejectError` when the worker broke the protocol; the server turns it into the status."""
        self._writer = asyncio.create_task(self._write(), name="worker-stream-writer")
        try:
            while (data := await self._stream.receive()) is not None:
                if self._receive(codec.decode(data), take):
                    await asyncio.sleep(0)  # a busy worker must not starve the others
                while self._plain_gate.held > MAX_HELD_PLAIN:
                    self._room.clear()
                    await self._room.wait()
        except IncompatibleError as exc:
            raise RejectError("FAILED_PRECONDITION", str(exc)) from None
        except (ProtocolViolationError, codec.CodecError) as exc:
            raise RejectError("INVALID_ARGUMENT", str(exc)) from None
        finally:
            # In a task of its own, so that it continues when gRPC cancels the call, as it does when the worker vanishes.
            self._leaving = asyncio.create_task(self._leave(), name="worker-stream-leaving")
            await asyncio.shield(self._leaving)

    async def finish(self) -> None:
        """Send what is owed, above all acknowledgements, and nothing after it."""
        self._closing = True
        self._news.set()
        if self._writer is not None:
            await asyncio.wait([self._writer], timeout=FINISH_TIMEOUT_S)

    async def left(self) -> None:
        """Wait until the ended stream is cleaned up."""
        if self._leaving is not None:
            await asyncio.wait([self._leaving])

    def _receive(self, message: Message, take: Take) -> bool:
        """Handle one message; whether it had any effect."""
        effects = self._protocol.receive_numbered(message)
        memory = self._protocol.memory
        if isinstance(memory, GatedMemory):
            memory.attach(self._poke)
            hold = memory.gate.open(memory.last_seq)
        else:
            self._plain_seq += 1
            hold = self._plain_gate.open(self._plain_seq)
        for number, effect in effects:
            hold.number = number
            take(self, effect, hold)
        hold.release()
        self._poke()
        return bool(effects)

    def _poke(self) -> None:
        """There may be something to send: wake the writer."""
        if self._protocol.is_urgent:
            self._news.set()
        elif self._protocol.owes and self._ack_timer is None:
            self._ack_timer = asyncio.get_running_loop().call_later(ACK_DELAY_S, self._ack_now)

    def _ack_now(self) -> None:
        self._ack_timer = None
        self._news.set()

    async def _write(self) -> None:
        try:
            while not self._closing:
                await self._news.wait()
                self._news.clear()
                while (data := self._outgoing()) is not None:
                    await self._stream.send(data)
                if self._ack_timer is not None and not self._protocol.owes:
                    self._ack_timer.cancel()  # the message carries the acknowledgement
                    self._ack_timer = None
        except StreamOverError:
            return

    def _outgoing(self) -> bytes | None:
        """The next message to write to the stream."""
        message = self._protocol.outgoing(SEND_BYTES)
        return codec.encode(message) if message is not None else None

    async def _leave(self) -> None:
        # Never cancel the writer in the middle of a write: gRPC would continue it, and accept no status meanwhile.
        await self.finish()
        if self._writer is not None:
            self._writer.cancel()
        if self._ack_timer is not None:
            self._ack_timer.cancel()
        memory = self._protocol.memory
        if isinstance(memory, GatedMemory):
            memory.detach(self._poke)
