"""The scheduler's side of one stream, without I/O.

                    before a registration    PLAIN                       BATCHES: both sides have the extension `batch`
    Registration    PLAIN or BATCHES         a heartbeat                 a heartbeat, answered with an Ack
    anything else   the stream ends          taken as it comes           taken once: repeats from an earlier stream are skipped

In BATCHES the scheduler opens with a Hello. Then it repeats what the last stream may have lost: the command of each run
that the worker does not name, and each interruption. It acknowledges what it received, in a batch of its own or in an
Ack. In PLAIN nothing is acknowledged, and each message travels alone. The first registration decides between the two;
one with another major version ends the stream.

A result counts when the worker has that run and the attempt is the current one. Otherwise it is a `StaleResult`.
"""

from collections import deque
from collections.abc import Callable

import msgspec

from gen_worker.wire.messages import (
    BATCH,
    EXTENSIONS,
    FEW_EVENTS,
    MAX_ACTIVE_RUNS,
    Ack,
    Batch,
    CloseRealtime,
    Event,
    Hello,
    InterruptRun,
    LoadModelResult,
    Message,
    RealtimeCredit,
    RealtimeFrame,
    Registration,
    RunCommand,
    RunResult,
    Single,
    Unknown,
    UnloadModelResult,
    UrlRefreshRequest,
    size_of,
)
from gen_worker.wire_protocol import WIRE_PROTOCOL_MAJOR

ACK_AFTER_MESSAGES = 256
MAX_NAMES = 10_000  # the most functions or models in one registration
MAX_NAME_BYTES = 1024


class ProtocolViolationError(ValueError):
    """The worker broke the protocol; the stream ends with this text."""


class IncompatibleError(ProtocolViolationError):
    """The worker's protocol version is not supported. Workers recognise this text."""

    def __init__(self, major: int, minor: int) -> None:
        super().__init__(f"unsupported_worker_protocol:{major}.{minor} supported={WIRE_PROTOCOL_MAJOR}:0-9999")


class WorkerMemory:
    """What a scheduler remembers of one worker process from stream to stream."""

    def __init__(self, instance_id: str = "") -> None:
        self.instance_id = instance_id
        self.last_seq = 0
        # for a scheduler that stores messages: all up to this number are stored; None: do not wait for storage
        self.durable_seq: int | None = None
        self.runs: dict[str, RunCommand] = {}  # runs given to it that have no result yet
        self.interrupted: set[str] = set()


class Registered(msgspec.Struct, frozen=True):
    """A worker has registered, or sent a heartbeat (`is_heartbeat`)."""

    registration: Registration
    is_heartbeat: bool


class RunEnded(msgspec.Struct, frozen=True):
    """The one result of a run."""

    result: RunResult


class StaleResult(msgspec.Struct, frozen=True):
    """A result for a run that this worker does not have, or had ended before."""

    run_id: str


SchedulerEffect = (
    Registered
    | RunEnded
    | StaleResult
    | Event
    | LoadModelResult
    | UnloadModelResult
    | UrlRefreshRequest
    | RealtimeFrame
    | CloseRealtime
    | RealtimeCredit
    | Unknown
)


class SchedulerSession:
    """Takes a worker's messages, each once even if it is sent again, and queues messages for the worker.

    `memories` maps instance ids to what is remembered; it outlives the session. Without `extensions` this is a
    scheduler of plain protocol 1.0. With `few_events` workers need not report the steps that every run takes.
    `make_memory` makes a memory for a new instance.
    """

    def __init__(
        self,
        memories: dict[str, WorkerMemory],
        *,
        extensions: bool = True,
        few_events: bool = False,
        make_memory: Callable[[str], WorkerMemory] = WorkerMemory,
    ) -> None:
        self.memory = WorkerMemory()
        self.registration: Registration | None = None
        self.extensions: tuple[str, ...] = ()  # extensions that both sides support
        self._memories = memories
        self._make_memory = make_memory
        self._offered = ((*EXTENSIONS, FEW_EVENTS) if few_events else EXTENSIONS) if extensions else ()
        self._queue: deque[Single] = deque()
        self._batches = False
        self._acked_seq = 0

    def receive(self, message: Message) -> list[SchedulerEffect]:
        """Handle one message and return its effects; `ProtocolViolationError` ends the stream."""
        return [effect for _, effect in self.receive_numbered(message)]

    def receive_numbered(self, message: Message) -> list[tuple[int, SchedulerEffect]]:
        """The same, each effect with the worker's number of its message, which is unchanged in a repeat. 0: the message has no number."""
        if self.registration is None:
            if not isinstance(message, Registration):
                raise ProtocolViolationError(f"a stream opens with a registration, not with {type(message).__name__}")
            return [(0, self._register(message))]
        if isinstance(message, Batch):
            return self._receive_batch(message)
        return [(0, self._receive(message))]

    def start(self, command: RunCommand) -> None:
        """Give the worker a run."""
        self.memory.runs[command.run_id] = command
        self.send(command)

    def interrupt(self, run_id: str) -> None:
        """Ask the worker to stop a run."""
        if run_id in self.memory.runs:
            self.memory.interrupted.add(run_id)
            self.send(InterruptRun(run_id))

    def send(self, message: Single) -> None:
        """Queue a message for the worker."""
        self._queue.append(message)

    @property
    def owes(self) -> bool:
        """Whether there is anything to send, even only an acknowledgement."""
        return bool(self._queue) or self._unacked > 0

    @property
    def is_urgent(self) -> bool:
        """Whether to send now, rather than together with whatever comes within the next milliseconds."""
        return bool(self._queue) or self._unacked >= ACK_AFTER_MESSAGES

    def outgoing(self, max_bytes: int) -> Message | None:
        """The next message to write to the stream."""
        queue = self._queue
        if not self._batches or (queue and isinstance(queue[0], Hello)):
            return queue.popleft() if queue else None
        taken: list[Single] = []
        while queue and (not taken or size_of(queue[0]) <= max_bytes):
            max_bytes -= size_of(queue[0])
            taken.append(queue.popleft())
        if not taken:
            return self._ack() if self._unacked else None
        if len(taken) == 1 and not self._unacked:
            return taken[0]
        self._acked_seq = self._ackable_seq
        return Batch(tuple(taken), 0, self._acked_seq)

    def _ack(self) -> Ack:
        self._acked_seq = self._ackable_seq
        return Ack(self._acked_seq)

    @property
    def _unacked(self) -> int:
        return max(0, self._ackable_seq - self._acked_seq) if self._batches else 0

    @property
    def _ackable_seq(self) -> int:
        """The number up to which messages may be acknowledged; the worker then forgets them."""
        durable_seq = self.memory.durable_seq
        return self.memory.last_seq if durable_seq is None else durable_seq

    def _register(self, registration: Registration) -> SchedulerEffect:
        if registration.protocol_major != WIRE_PROTOCOL_MAJOR:
            raise IncompatibleError(registration.protocol_major, registration.protocol_minor)
        _check_names(registration)
        self.registration = registration
        if registration.instance_id:
            known = self._memories.get(registration.instance_id)
            self.memory = known or self._make_memory(registration.instance_id)
            self._memories[registration.instance_id] = self.memory
        if BATCH in registration.extensions and BATCH in self._offered:
            self._batches = True
            self._acked_seq = self._ackable_seq
            self.extensions = tuple(name for name in self._offered if name in registration.extensions)
            self.send(Hello(self.extensions, self._acked_seq))
            self._send_again(registration)
        return Registered(registration, is_heartbeat=False)

    def _send_again(self, registration: Registration) -> None:
        """Repeat commands lost with the last stream: the worker does not have those runs."""
        has = registration.attempts()
        for run_id, command in self.memory.runs.items():
            if has.get(run_id, -1) not in (0, command.attempt):  # the worker does not have the run, or has an earlier attempt of it
                self.send(command)
            if run_id in self.memory.interrupted:
                self.send(InterruptRun(run_id))

    def _receive_batch(self, batch: Batch) -> list[tuple[int, SchedulerEffect]]:
        effects: list[tuple[int, SchedulerEffect]] = []
        memory = self.memory
        numbered = batch.first_seq > 0
        for seq, message in enumerate(batch.messages, start=batch.first_seq):
            if numbered:
                if seq <= memory.last_seq:
                    continue  # already received on an earlier stream
                memory.last_seq = seq
            effects.append((seq if numbered else 0, message if type(message) is Event else self._receive(message)))
        return effects

    def _receive(self, message: Single) -> SchedulerEffect:
        match message:
            case RunResult(run_id):
                command = self.memory.runs.get(run_id)
                if command is None or message.attempt not in (0, command.attempt):
                    return StaleResult(run_id)  # a run that it was not given, or the end of an abandoned attempt
                del self.memory.runs[run_id]
                self.memory.interrupted.discard(run_id)
                return RunEnded(message)
            case Registration():
                _check_names(message)
                self.registration = message
                if self._batches:
                    self.send(self._ack())  # tells the worker that both directions work
                return Registered(message, is_heartbeat=True)
            case Event() | RealtimeFrame() | RealtimeCredit() | CloseRealtime():
                return message
            case LoadModelResult() | UnloadModelResult() | UrlRefreshRequest():
                return message
            case _:
                return Unknown()


def _check_names(registration: Registration) -> None:
    resources = registration.resources
    for what, names in (
        ("available_functions", resources.available_functions),
        ("vram_models", resources.vram_models),
        ("disk_models", resources.disk_models),
        ("installed_libs", resources.installed_libs),
        ("model_tiers", [tier.model_id for tier in resources.model_tiers]),
        ("function_schemas", [schema.name for schema in resources.function_schemas]),
        ("function_concurrency", list(resources.function_concurrency)),
        ("active_run_ids", registration.active_run_ids),
        ("active_runs", [run.run_id for run in registration.active_runs]),
        ("extensions", registration.extensions),
    ):
        most = MAX_ACTIVE_RUNS if what.startswith("active_run") else MAX_NAMES
        if len(names) > most:
            raise ProtocolViolationError(f"registration with {len(names)} {what}; at most {most} are taken")
        longest = max(map(len, names), default=0)
        if longest > MAX_NAME_BYTES:
            raise ProtocolViolationError(f"registration with a name of {longest} characters in {what}; at most {MAX_NAME_BYTES} are taken")
