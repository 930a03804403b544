"""One worker's stream as a scheduler drives it: messages in, each once; commands out; nothing confirmed before it is done with.

    gRPC server -- ServerStream --> run() ------> take(stream, effect, hold)   the scheduler: looks, decides, writes down
    gRPC server <-- ServerStream -- its writer <-- start, interrupt, send, adopt

One task reads, one writes; neither does anything that waits for the scheduler's store. `take` is called on the loop for each effect, in
the order of the stream; it must neither wait nor raise. What takes longer keeps `hold.take()` and releases it when it is done: until
then the worker keeps the message, and sends it again should this scheduler die.

Back-pressure: what is held is not confirmed, and a worker whose messages are not confirmed pauses its streams of output (at 4,096 messages
or 4 MiB). Heartbeats go on and are answered. A worker of plain protocol 1.0 knows no confirmations: of it nothing is read while more than
`MAX_HELD_PLAIN` messages are held. What is sent to a worker is queued here without a bound: it is the scheduler's to give no worker more
runs than it takes.
"""

import asyncio
from collections.abc import Callable, Mapping

from gen_worker.transport.grpc_server import RejectError, ServerStream
from gen_worker.transport.stream import StreamOverError, not_leader
from gen_worker.wire import codec
from gen_worker.wire.holds import AckGate, GatedMemory, Hold
from gen_worker.wire.messages import REALTIME_CREDIT, REALTIME_WINDOW, Registration, Resources, RunCommand, Single
from gen_worker.wire.scheduler_session import IncompatibleError, ProtocolViolationError, SchedulerEffect, SchedulerSession, WorkerMemory

ACK_DELAY_S = 0.005  # confirmations that nothing else travels with wait so long for each other
FINISH_TIMEOUT_S = 1.0
SEND_BYTES = 256 << 10
MAX_HELD_PLAIN = 256

Memories = dict[str, WorkerMemory]
Take = Callable[["WorkerStream", SchedulerEffect, Hold], None]


class WorkerStream:
    """A worker that is connected. Built for each stream by the `serve` of a `GrpcServer`, which then awaits `run`.

    `memories` is kept by the scheduler across streams: what is known of each worker process, by its instance id. Without `extensions` this
    is a scheduler of plain protocol 1.0; with `few_events` it is not told the steps that every run takes (`events.TOLD_BY_THE_RESULT`).
    """

    def __init__(self, stream: ServerStream, memories: Memories, *, extensions: bool = True, few_events: bool = False) -> None:
        self._stream = stream
        self._protocol = SchedulerSession(memories, extensions=extensions, few_events=few_events, make_memory=GatedMemory)
        self._room = asyncio.Event()
        self._plain_gate = AckGate(self._room.set)  # of a worker without an instance id, whom nothing is confirmed to
        self._plain_seq = 0
        self._news = asyncio.Event()
        self._ack_timer: asyncio.TimerHandle | None = None
        self._writer: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._closing = False

    # Who it is.

    @property
    def token(self) -> str:
        """The bearer token that it came with, empty without one."""
        return self._stream.token

    @property
    def metadata(self) -> Mapping[str, str]:
        return self._stream.metadata

    @property
    def peer(self) -> str:
        """Its address, as gRPC writes it."""
        return self._stream.peer

    @property
    def registration(self) -> Registration | None:
        """Its newest registration or heartbeat; None before the first."""
        return self._protocol.registration

    @property
    def resources(self) -> Resources:
        """What it has and serves, as it said last."""
        return self._protocol.registration.resources if self._protocol.registration is not None else Resources()

    @property
    def run_ids(self) -> frozenset[str]:
        """Runs that it was given and that have no result."""
        return frozenset(self._protocol.memory.runs)

    @property
    def memory(self) -> WorkerMemory:
        """What is remembered of this worker process."""
        return self._protocol.memory

    @property
    def counts_frames(self) -> bool:
        """Whether frames of realtime sessions have to be credited."""
        return REALTIME_CREDIT in self._protocol.extensions

    @property
    def counts_frames_back(self) -> bool:
        """Whether its own frames have to be credited to it, and it grants by bytes."""
        return REALTIME_WINDOW in self._protocol.extensions

    # What it is told.

    def start(self, command: RunCommand) -> None:
        """Give it a run. The command is sent again on its next stream, should it be lost with this one."""
        self._protocol.start(command)
        self._news.set()

    def adopt(self, command: RunCommand) -> None:
        """It has this run already, from an earlier scheduler: its result counts, and the command is not sent."""
        self._protocol.memory.runs[command.run_id] = command

    def interrupt(self, run_id: str) -> None:
        """Ask it to stop a run. Of a run that it was not given nothing is said."""
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
        """This scheduler is not the leader: end the stream and name the one that is, `host:port`, or nobody."""
        self.close(*not_leader(address))

    # Its life.

    async def run(self, take: Take) -> None:
        """Serve the stream until it ends. `RejectError`, which the server turns into the status, where the worker broke the protocol."""
        self._writer = asyncio.create_task(self._write(), name="worker-stream-writer")
        try:
            while (data := await self._stream.receive()) is not None:
                if self._receive(data, take):
                    await asyncio.sleep(0)  # a worker that says much must not keep the others waiting
                while self._plain_gate.held > MAX_HELD_PLAIN:
                    self._room.clear()
                    await self._room.wait()
        except IncompatibleError as exc:
            raise RejectError("FAILED_PRECONDITION", str(exc)) from None
        except (ProtocolViolationError, codec.CodecError) as exc:
            raise RejectError("INVALID_ARGUMENT", str(exc)) from None
        finally:
            # A task of its own: it goes on when gRPC cancels the call, as it does when the worker is gone.
            self._leaving = asyncio.create_task(self._leave(), name="worker-stream-leaving")
            await asyncio.shield(self._leaving)

    async def finish(self) -> None:
        """Send what is owed, confirmations above all, and nothing after it."""
        self._closing = True
        self._news.set()
        if self._writer is not None:
            await asyncio.wait([self._writer], timeout=FINISH_TIMEOUT_S)

    async def left(self) -> None:
        """Wait until the stream, which has ended, is put away."""
        if self._leaving is not None:
            await asyncio.wait([self._leaving])

    def _receive(self, data: bytes, take: Take) -> bool:
        """Take one message; whether anything came of it."""
        effects = self._protocol.receive_numbered(codec.decode(data))
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
        """There may be something to send."""
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
                    self._ack_timer.cancel()  # the confirmation went along
                    self._ack_timer = None
        except StreamOverError:
            return

    def _outgoing(self) -> bytes | None:
        """The next message for the stream."""
        message = self._protocol.outgoing(SEND_BYTES)
        return codec.encode(message) if message is not None else None

    async def _leave(self) -> None:
        # The writer is not cancelled in the middle of a write: gRPC goes on with it, and takes no status beside it.
        await self.finish()
        if self._writer is not None:
            self._writer.cancel()
        if self._ack_timer is not None:
            self._ack_timer.cancel()
        memory = self._protocol.memory
        if isinstance(memory, GatedMemory):
            memory.detach(self._poke)
