"""One worker's stream: what it says goes to the pool and the dispatcher, what they say goes to it.

A stream is read by one task and written by another. Neither does anything that waits for the store: what has to be written is put,
and a `Hold` keeps the acknowledgement back until it is.
"""

import asyncio
from collections.abc import Callable

from gen_orchestrator.scheduling.holds import AckGate, Hold
from gen_worker.transport.grpc_server import RejectError, ServerStream
from gen_worker.transport.stream import StreamOverError
from gen_worker.wire import codec
from gen_worker.wire.messages import Registration, RunCommand, Single
from gen_worker.wire.scheduler_session import Effect, IncompatibleError, ProtocolViolationError, SchedulerSession, WorkerMemory

ACK_DELAY_S = 0.005
FINISH_TIMEOUT_S = 1.0
SEND_BYTES = 256 << 10


class Memory(WorkerMemory):
    """What is remembered of one worker process, with the gate that says what may be confirmed to it."""

    def __init__(self, instance_id: str = "") -> None:
        super().__init__(instance_id)
        self.durable_seq = 0
        self.gate = AckGate(self._advanced)
        self.on_ackable: Callable[[], None] | None = None

    def _advanced(self) -> None:
        self.durable_seq = self.gate.confirmed_seq
        if self.on_ackable is not None:
            self.on_ackable()


class Session:
    """A live stream. `apply` gets every effect of a message, with the hold of its batch."""

    def __init__(self, stream: ServerStream, memories: dict[str, WorkerMemory]) -> None:
        self._stream = stream
        self._protocol = SchedulerSession(memories, make_memory=Memory)
        self._closing = False
        self._news = asyncio.Event()
        self._ack_timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None

    @property
    def registration(self) -> Registration | None:
        return self._protocol.registration

    def adopt(self, command: RunCommand) -> None:
        """The worker has this run already: its result counts, and the command is not sent again."""
        self._protocol.memory.runs[command.run_id] = command

    def start(self, command: RunCommand) -> None:
        """Give the worker a run."""
        self._protocol.start(command)
        self._news.set()

    def interrupt(self, run_id: str) -> None:
        """Ask the worker to stop a run."""
        self._protocol.interrupt(run_id)
        self._news.set()

    def send(self, message: Single) -> None:
        """Send any message."""
        self._protocol.send(message)
        self._news.set()

    def close(self, code: str, details: str) -> None:
        """End the stream with a status."""
        self._stream.end(code, details)

    async def run(self, apply: "Apply") -> None:
        """Serve the stream until it ends. `RejectError` tells the worker why, where it broke the protocol."""
        self._writing = asyncio.create_task(self._write(), name="session-writer")
        try:
            while (data := await self._stream.receive()) is not None:
                self._receive(data, apply)
                await asyncio.sleep(0)  # a worker that says much must not keep the others waiting
        except IncompatibleError as exc:
            raise RejectError("FAILED_PRECONDITION", str(exc)) from None
        except (ProtocolViolationError, codec.CodecError) as exc:
            raise RejectError("INVALID_ARGUMENT", str(exc)) from None
        finally:
            await self._finish()

    def _receive(self, data: bytes, apply: "Apply") -> None:
        effects = self._protocol.receive(codec.decode(data))
        memory = self._protocol.memory
        if not isinstance(memory, Memory):
            for effect in effects:
                apply(self, effect, None)
            self._poke()
            return
        memory.on_ackable = self._poke
        hold = memory.gate.open(memory.last_seq)
        for effect in effects:
            apply(self, effect, hold)
        hold.release()
        self._poke()

    def _poke(self) -> None:
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
                while (message := self._protocol.outgoing(SEND_BYTES)) is not None:
                    await self._stream.send(codec.encode(message))
                if self._ack_timer is not None and not self._protocol.owes:
                    self._ack_timer.cancel()
                    self._ack_timer = None
        except StreamOverError:
            return

    async def _finish(self) -> None:
        self._closing = True
        self._news.set()
        if self._ack_timer is not None:
            self._ack_timer.cancel()
        memory = self._protocol.memory
        if isinstance(memory, Memory) and memory.on_ackable == self._poke:
            memory.on_ackable = None
        if self._writing is not None:
            # Not cancelled in the middle of a write: gRPC goes on with it, and takes no status beside it.
            await asyncio.wait([self._writing], timeout=FINISH_TIMEOUT_S)
            self._writing.cancel()


Apply = Callable[[Session, Effect, Hold | None], None]
