"""Watches canaries: compares the last runs of a candidate with those of the tag's release, and drops a worse candidate.

Candidates are in the store; the windows of last runs are not. A canary continues after a restart, judged by the runs since then.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping

import msgspec

from gen_orchestrator.auth.keys import Keys
from gen_orchestrator.domain import canary
from gen_orchestrator.domain.access import ALL_OWNERS, Caller
from gen_orchestrator.domain.canary import Candidate, Ended
from gen_orchestrator.domain.gates import GateResult
from gen_orchestrator.domain.runs import Run
from gen_orchestrator.hub.registry import Registry
from gen_orchestrator.store.base import GateStore, StoreError
from gen_worker.clock import Clock
from gen_worker.log import Log

_ITSELF = Caller(ALL_OWNERS, (), "gate:canary")
MAX_DROPPED = 100  # dropped candidates that are remembered


class Canaries:
    """One for each leader. `paused`: releases that get no worker, and why; such a candidate is dropped, too. `dropped`:
    which candidate was removed from which tag, and why, newest last. `on_dropped` is called after each.
    """

    def __init__(
        self,
        registry: Registry,
        store: GateStore,
        keys: Keys,
        paused: Mapping[str, str],
        clock: Clock,
        log: Log,
        on_dropped: Callable[[], None],
    ) -> None:
        self._paused = paused
        self._registry = registry
        self._store = store
        self._keys = keys
        self._clock = clock
        self._log = log
        self._on_dropped = on_dropped
        self._windows: dict[Candidate, tuple[float, deque[Ended], deque[Ended]]] = {}
        self._dropping: set[asyncio.Task[None]] = set()
        self.dropped: dict[tuple[str, str], str] = {}  # (owner, owner/endpoint/function:tag) -> the dropped candidate, and why

    def look(self) -> None:
        """A canary may have begun: from now on its runs count, by the monotonic clock."""
        for candidate in self._registry.candidates():
            if candidate not in self._windows:
                self._window(candidate)

    def ended(self, run: Run, accepted_s: float) -> None:
        """A run has ended that was accepted at `accepted_s` of the monotonic clock. A run from before the canary does not count."""
        candidate = self._registry.candidate(run.owner, run.endpoint, run.function, run.tag)
        if candidate is None:
            return
        counted = canary.ended(run)
        if counted is None:
            return
        since_s, mine, other = self._window(candidate)
        if accepted_s < since_s:
            return
        (mine if run.release_id == candidate.release_id else other).append(counted)
        if candidate.release_id in self._paused:  # its own runs do not end; this was called for a run of the tag's release
            why = f"no worker runs it: {self._paused[candidate.release_id]}"
        else:
            why = canary.verdict(mine, other)
        if why:
            self._windows.pop(candidate)
            task = asyncio.get_running_loop().create_task(self._drop(candidate, why, len(mine)), name="canary-drop")
            self._dropping.add(task)
            task.add_done_callback(self._dropping.discard)

    def _window(self, candidate: Candidate) -> tuple[float, deque[Ended], deque[Ended]]:
        found = self._windows.get(candidate)
        if found is None:
            current = set(self._registry.candidates())
            for gone in [each for each in self._windows if each not in current]:
                del self._windows[gone]
            since_s = self._clock.now_s() - max(0.0, self._clock.unix_s() - candidate.since)
            found = self._windows[candidate] = (since_s, deque(maxlen=canary.WINDOW), deque(maxlen=canary.WINDOW))
        return found

    async def _drop(self, candidate: Candidate, why: str, runs: int) -> None:
        ref = f"{candidate.owner}/{candidate.endpoint}/{candidate.function}:{candidate.tag}"
        result = GateResult(
            release_id=candidate.release_id,
            function=candidate.function,
            kind="canary",
            subject=candidate.tag,
            owner=candidate.owner,
            passed=False,
            detail=msgspec.json.encode({"error": why, "percent": candidate.percent, "runs": runs}),
            at=self._clock.unix_s(),
        )

        def drop() -> bool:
            if not self._registry.drop_candidate(candidate):
                return False
            self._store.save_results([result])
            subject = f"{candidate.endpoint}/{candidate.function}:{candidate.tag}"
            self._keys.note(_ITSELF, candidate.owner, "canary.dropped", subject, f"{candidate.release_id}: {why}")
            return True

        try:
            is_dropped = await asyncio.to_thread(drop)
        except StoreError as exc:  # the candidate's next run leads to the same verdict, and it is tried again
            self._log.warning("canary.not_dropped", ref=ref, release_id=candidate.release_id, error=str(exc))
            return
        if is_dropped:
            self._log.warning("canary.dropped", ref=ref, release_id=candidate.release_id, why=why)
            self.dropped.pop((candidate.owner, ref), None)
            self.dropped[candidate.owner, ref] = f"{candidate.release_id} was dropped: {why}"
            if len(self.dropped) > MAX_DROPPED:
                del self.dropped[next(iter(self.dropped))]
            self._on_dropped()
