"""Serves workers: checks their tokens, serves their streams, and tracks their runs across reconnects and losses.

    stream opens: token ok? -> first registration -> `Pool` (new, back, or a new process under an old id)
    stream ends:  the worker is away; its runs stay with it until the lease is over
    lease over (30 s of silence), or its process is known dead: its runs are taken back

A worker that is back still has its runs, or their results in its outbox: nothing is executed again. If some of its runs
were given to another worker meanwhile, it is told to stop them, and their results are dropped.
"""

import asyncio
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from gen_orchestrator.auth.worker_tokens import TokenError, WorkerClaims, WorkerTokens, joined_by_hand
from gen_orchestrator.domain.losses import Loss
from gen_orchestrator.domain.redaction import Redactor
from gen_orchestrator.scheduling import plain_workers
from gen_orchestrator.scheduling.dispatcher import Dispatcher
from gen_orchestrator.scheduling.fitness import Fitness
from gen_orchestrator.scheduling.open_run import OpenRun, Phase
from gen_orchestrator.scheduling.pool import Pool, Worker
from gen_orchestrator.scheduling.redacted import redacted
from gen_orchestrator.scheduling.url_renewals import URL_REFRESH, Addresses, UrlRenewals
from gen_worker import events
from gen_worker.clock import Clock
from gen_worker.log import Log
from gen_worker.transport.grpc_server import RejectError, ServerStream
from gen_worker.transport.worker_stream import WorkerStream
from gen_worker.wire.holds import Hold
from gen_worker.wire.messages import (
    CloseRealtime,
    Event,
    InterruptRun,
    RealtimeCredit,
    RealtimeFrame,
    Registration,
    ReleaseConfig,
    RunCommand,
    UrlRefreshRequest,
)
from gen_worker.wire.scheduler_session import Registered, RunEnded, SchedulerEffect, StaleResult, WorkerMemory
from gen_worker.wire.worker_session import ROTATE_TYPES

LEASE_S = 30.0
PLAIN_GRACE_S = 15.0  # for workers whose protocol does not say which runs they still have
SWEEP_S = 1.0
MAX_MEMORIES = 10_000
_DRAINING = b"worker_draining"  # the reason for a refusal
MAX_TRACEBACK = 4000
_NOTHING_SECRET = Redactor()


class Gateway:
    """One for each leader. Streams are passed to `serve`."""

    def __init__(
        self,
        tokens: WorkerTokens,
        pool: Pool,
        dispatcher: Dispatcher,
        fitness: Fitness,
        clock: Clock,
        log: Log,
        *,
        owner_of: Callable[[str], str | None],
        redactor_of: Callable[[str], Redactor] = lambda release_id: _NOTHING_SECRET,
        config_of: Callable[[str], ReleaseConfig | None] = lambda release_id: None,
        addresses: Addresses | None = None,
    ) -> None:
        self._config_of = config_of
        self._renewals = UrlRenewals(addresses, config_of, log)
        self._owner_of = owner_of
        self._redactor_of = redactor_of
        self._tokens = tokens
        self._pool = pool
        self._dispatcher = dispatcher
        self._fitness = fitness
        self._clock = clock
        self._log = log
        self._memories: dict[str, WorkerMemory] = {}
        self._sessions: dict[WorkerStream, None] = {}
        self._sweeping: asyncio.Task[None] | None = None
        self._orphans: dict[str, OpenRun] = {}  # leased by an earlier leader; their worker has not registered here
        self._orphans_until_s = 0.0
        self._orphans_loss = Loss.SHARED
        self._orphans_by_hand_until_s = 0.0

    def start(self) -> None:
        """Begin to watch leases."""
        self._sweeping = asyncio.create_task(self.sweep(), name="lease-sweep")

    def stop(self, leader_address: str) -> None:
        """End all streams, naming the next leader if it is known. Workers keep what was not acknowledged."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        self._renewals.stop()
        for session in list(self._sessions):
            session.redirect(leader_address)

    def expect(self, orphans: list[OpenRun], grace_s: float) -> None:
        """Runs that had a worker when this leader took over: the worker keeps them if it registers in time. There is no
        such time when the workers are known to have ended with the previous process. A worker started by hand survives
        this program, and has the time of a lease.
        """
        self._orphans_loss = Loss.SHARED if grace_s else Loss.OURS
        self._orphans = {open_run.id: open_run for open_run in orphans}
        self._orphans_until_s = self._clock.now_s() + grace_s
        self._orphans_by_hand_until_s = self._clock.now_s() + LEASE_S

    def process_ended(self, worker_id: str) -> None:
        """A worker's process is known to be gone: nothing of it needs to be waited for."""
        for open_run in [run for run in self._orphans.values() if run.run.worker_id == worker_id]:
            self._lose_orphan(open_run)
        worker = self._pool.get(worker_id)
        if worker is not None:
            self._lose(worker, "process_ended")

    def put_down(self, worker_id: str) -> None:
        """This worker's process is about to be killed on purpose: its runs return to the queue, without blame."""
        worker = self._pool.get(worker_id)
        if worker is not None:
            self._lose(worker, "put_down", ours=True)

    def drain(self, worker: Worker) -> None:
        """Give this worker no more runs."""
        worker.draining = True

    # ---- streams

    async def serve(self, stream: ServerStream) -> None:
        """One worker's stream, from its token to its end."""
        try:
            claims = self._tokens.verify(stream.token)
        except TokenError as exc:
            self._log.warning("worker.token_refused", peer=stream.peer, reason=str(exc))
            raise RejectError("UNAUTHENTICATED", "the worker token is not accepted") from None
        if self._owner_of(claims.release_id) != claims.owner:
            self._log.warning(
                "security.worker_refused", peer=stream.peer, worker_id=claims.worker_id, owner=claims.owner, release_id=claims.release_id
            )
            raise RejectError("PERMISSION_DENIED", "the worker token is not for a release of its owner on this platform")
        session = WorkerStream(stream, self._memories, few_events=True)
        guest = _Guest(claims)
        self._sessions[session] = None
        try:
            await session.run(lambda source, effect, hold: self._take(guest, source, effect, hold))
        finally:
            self._sessions.pop(session, None)
            worker = guest.worker
            if worker is not None and worker.link is session:
                worker.link = None
                worker.away_since_s = self._clock.now_s()
                self._dispatcher.sessions.stream_lost(worker)
                self._log.info("worker.away", worker_id=worker.worker_id, runs=len(worker.runs))

    def _take(self, guest: "_Guest", session: WorkerStream, effect: SchedulerEffect, hold: Hold) -> None:
        try:
            self._apply(guest, session, redacted(effect, self._redactor_of(guest.claims.release_id)), hold)
        except Exception as exc:  # noqa: BLE001 - the same boundary as `_contained`, which costs more: this comes several times a run
            self._broke(f"taking a {type(effect).__name__}", guest.claims.worker_id, exc)

    def _apply(self, guest: "_Guest", session: WorkerStream, effect: SchedulerEffect, hold: Hold) -> None:
        worker = guest.worker
        match effect:
            case Event() if worker is not None and effect.run_id:
                if effect.event_type == events.REJECTED and _DRAINING in effect.payload:
                    worker.draining = True  # it was told to end, by an earlier leader or on its own machine
                self._dispatcher.on_event(worker, effect, hold)
            case RunEnded(result) if worker is not None:
                self._dispatcher.on_result(worker, result, hold)
            case RealtimeFrame() | RealtimeCredit() if worker is not None:
                self._dispatcher.sessions.heard(worker, effect)
            case CloseRealtime() if worker is not None:
                self._dispatcher.on_session_end(worker, effect, hold)
            case Registered(registration, False):
                guest.worker = self._joined(guest.claims, registration, session)
                self._dispatcher.pump_release(guest.claims.release_id)
            case Registered(registration, True) if worker is not None:
                worker.heard(registration, self._clock.now_s())
                self._dispatcher.trace.seen(worker, self._clock.now_s())
                self._extend(worker, registration)
                self._dispatcher.pump_release(worker.release_id)
            case StaleResult(run_id):
                if worker is not None:
                    worker.zombies.discard(run_id)
                self._log.info("run.stale_result", run_id=run_id, worker_id=guest.claims.worker_id)
            case Event(event_type=events.RUN_LEFT) if worker is not None:
                self._fitness.ignores(worker.worker_id, effect.payload.decode(errors="replace"))
            case UrlRefreshRequest(model_id) if worker is not None:
                self._renewals.ask(worker, model_id)
            case Event() if worker is not None:
                if effect.event_type == URL_REFRESH:
                    self._renewals.ask_in_words(worker, effect.payload)
                self._log.info("worker.said", worker_id=worker.worker_id, type=effect.event_type)
            case _:
                pass

    def _joined(self, claims: WorkerClaims, registration: Registration, session: WorkerStream) -> Worker:
        now_s = self._clock.now_s()
        worker = self._pool.get(claims.worker_id)
        is_same = worker is not None and worker.instance_id == registration.instance_id
        if worker is not None and not is_same:
            self._lose(worker, "restarted")
        if worker is None or not is_same:
            worker = Worker(claims.worker_id, claims.owner, claims.release_id)
            worker.joined_s = now_s
            self._pool.add(worker)
        elif worker.link is not None:
            self._dispatcher.sessions.stream_lost(worker)
            worker.link.close("ABORTED", "the same worker has opened another stream")
        worker.instance_id = registration.instance_id
        worker.link = session
        worker.memory = session.memory
        worker.token_until = claims.exp
        worker.token_life_s = claims.life_s
        worker.heard(registration, now_s)
        self._dispatcher.trace.seen(worker, now_s)
        config = self._config_of(claims.release_id)
        if config is not None:
            session.send(self._renewals.with_addresses(worker, config))
        self._take_up(worker, registration, session)
        self._forget_memories()
        self._log.info(
            "worker.joined", worker_id=worker.worker_id, release_id=worker.release_id, functions=sorted(worker.functions), back=is_same
        )
        return worker

    def _take_up(self, worker: Worker, registration: Registration, session: WorkerStream) -> None:
        """Separate the worker's runs, including those given to it before, into ours and those that are no longer ours."""
        has = registration.attempts()
        is_plain = not registration.instance_id
        for open_run in [run for run in self._orphans.values() if run.run.worker_id == worker.worker_id]:
            del self._orphans[open_run.id]
            if has.get(open_run.id, -1) in (0, open_run.run.attempt) or is_plain:
                self._dispatcher.adopt(worker, open_run)
                session.adopt(RunCommand(run_id=open_run.id, function=open_run.function, attempt=open_run.run.attempt))
            else:
                self._dispatcher.lost(open_run, worker.worker_id, Loss.SHARED)
        worker.zombies &= has.keys()
        for run_id in has.keys() - worker.runs.keys():
            session.send(InterruptRun(run_id))
        if is_plain:
            for open_run in worker.runs.values():
                session.adopt(RunCommand(run_id=open_run.id, function=open_run.function, attempt=open_run.run.attempt))
            plain_workers.doubt(worker, self._clock.now_s())

    # ---- leases

    def _extend(self, worker: Worker, registration: Registration) -> None:
        """A heartbeat extends the leases of the runs that it lists. A plain worker lists none: it keeps all of its
        runs. Realtime sessions are not listed, either: they last as long as the stream.
        """
        now_s = self._clock.now_s()
        has = registration.attempts()
        if registration.instance_id:
            worker.zombies &= has.keys()
        for open_run in list(worker.runs.values()):
            if open_run.session is not None or not registration.instance_id or has.get(open_run.id, -1) in (0, open_run.run.attempt):
                open_run.listed_s = now_s
            elif now_s - open_run.listed_s > LEASE_S:
                self._dispatcher.dropped(open_run)

    async def sweep(self) -> None:
        """Take runs back from workers whose lease has expired, for ever. An error with one of them is logged, and tried again."""
        while True:
            await asyncio.sleep(SWEEP_S)
            now_s = self._clock.now_s()
            for worker in self._pool:
                with self._contained("looking after a worker", worker.worker_id):
                    self._look_after(worker, now_s)
            for open_run in list(self._orphans.values()):
                by_hand = joined_by_hand(open_run.run.worker_id)
                if now_s > (self._orphans_by_hand_until_s if by_hand else self._orphans_until_s):
                    with self._contained("taking back a run", open_run.run.worker_id):
                        self._lose_orphan(open_run)

    def _look_after(self, worker: Worker, now_s: float) -> None:
        plain_workers.settle(worker, now_s, self._dispatcher.repeat)
        if worker.link is None:
            grace_s = LEASE_S if worker.instance_id else PLAIN_GRACE_S
            if now_s - worker.away_since_s > grace_s:
                self._lose(worker, "lease_over")
                self._fitness.ignores(worker.worker_id, "it has not come back")
            elif not worker.runs:
                self._lose(worker, "away")
        elif now_s - worker.heard_s > LEASE_S:
            worker.link.close("DEADLINE_EXCEEDED", "no heartbeat came for 30 s")
            self._lose(worker, "silent")
            self._fitness.ignores(worker.worker_id, "it has said nothing for 30 s")
        elif worker.token_until - self._clock.unix_s() < worker.token_life_s / 2:
            self._rotate(worker)

    @contextmanager
    def _contained(self, what: str, worker_id: str) -> Iterator[None]:
        """An error with one worker or one message must not end a stream or a task that others share."""
        try:
            yield
        except Exception as exc:  # noqa: BLE001 - the boundary
            self._broke(what, worker_id, exc)

    def _broke(self, what: str, worker_id: str, exc: Exception) -> None:
        trace = "".join(traceback.format_exception(exc))[-MAX_TRACEBACK:]
        self._log.error("gateway.broken", what=what, worker_id=worker_id, error=repr(exc), traceback=trace)

    def _rotate(self, worker: Worker) -> None:
        """Give a worker its next token before the current one expires. If it is lost on the way, it is sent again on the next stream."""
        claims = WorkerClaims(worker.worker_id, worker.owner, worker.release_id, life_s=worker.token_life_s)
        payload = msgspec.json.encode({"worker_jwt": self._tokens.issue(claims)})
        worker.token_until = self._clock.unix_s() + worker.token_life_s
        if worker.link is not None:
            worker.link.send(Event("", ROTATE_TYPES[0], payload))
            self._log.info("worker.token_rotated", worker_id=worker.worker_id)

    def _lose(self, worker: Worker, why: str, *, ours: bool = False) -> None:
        self._pool.remove(worker)
        self._dispatcher.trace.gone(worker.worker_id, self._clock.now_s())
        worker.link = None
        self._fitness.gone(worker.worker_id)
        if worker.runs and not ours:
            self._fitness.lost(worker.worker_id, worker.release_id)
            self._log.warning("worker.lost", worker_id=worker.worker_id, why=why, runs=len(worker.runs))
        else:
            self._log.info("worker.gone", worker_id=worker.worker_id, why=why, runs=len(worker.runs))
        self._dispatcher.worker_lost(worker, ours=ours)

    def _lose_orphan(self, open_run: OpenRun) -> None:
        self._orphans.pop(open_run.id, None)
        if open_run.phase is Phase.LEASED:
            by_hand = joined_by_hand(open_run.run.worker_id)
            self._dispatcher.lost(open_run, open_run.run.worker_id, Loss.SHARED if by_hand else self._orphans_loss)

    def _forget_memories(self) -> None:
        present = {worker.instance_id for worker in self._pool}
        for instance_id in [known for known in self._memories if known not in present][: max(0, len(self._memories) - MAX_MEMORIES)]:
            del self._memories[instance_id]


class _Guest:
    """The other end of a stream: a worker once it has registered."""

    def __init__(self, claims: WorkerClaims) -> None:
        self.claims = claims
        self.worker: Worker | None = None
