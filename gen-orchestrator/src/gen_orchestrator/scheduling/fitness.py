"""Judges workers and releases by how their attempts end: which worker must be replaced, and which release is paused.

The dispatcher and the gateway report ends of attempts. The fleet's keeper reads the judgement and acts; `news` wakes
it.
"""

import asyncio
from collections.abc import Callable

from gen_orchestrator.domain.breakers import ReleaseBreaker, WorkerBreaker
from gen_worker.log import Log


class Fitness:
    """One for each leader."""

    def __init__(self, now_s: Callable[[], float], log: Log, news: asyncio.Event) -> None:
        self._now_s = now_s
        self._log = log
        self._news = news
        self._workers: dict[str, WorkerBreaker] = {}
        self._releases: dict[str, ReleaseBreaker] = {}
        self.paused: dict[str, str] = {}  # release -> why
        self.sick: dict[str, str] = {}  # worker to drain and replace -> why
        self.hung: dict[str, str] = {}  # worker to kill at once -> why

    def ended(self, worker_id: str, release_id: str, error_type: str) -> None:
        """A worker has reported the end of an attempt; `error_type` is empty for success."""
        self._release(release_id).ended()
        breaker = self._workers.get(worker_id)
        if breaker is None:
            if not error_type:
                return  # the most frequent case by far
            breaker = self._workers[worker_id] = WorkerBreaker()
        if breaker.ended(error_type) and worker_id not in self.sick and self._release(release_id).may_replace(self._now_s()):
            self.sick[worker_id] = f"its last runs all ended with {error_type!r}"
            self._log.warning("worker.sick", worker_id=worker_id, release_id=release_id, why=self.sick[worker_id])
            self._news.set()

    def lost(self, worker_id: str, release_id: str) -> None:
        """A worker was lost while it had runs."""
        if self._release(release_id).lost() and release_id not in self.paused:
            why = "over half of its last attempts lost their worker; its runs wait until a tag is moved to it again, or cozyctl up restarts"
            self.paused[release_id] = why
            self._log.error("release.paused", release_id=release_id, why=why)

    def ignores(self, worker_id: str, why: str) -> None:
        """A run of this worker continues although it was told to stop, or the worker does not answer: its process must be killed."""
        self.hung[worker_id] = why
        self._news.set()

    def gone(self, worker_id: str) -> None:
        """Forget everything about this worker."""
        self._workers.pop(worker_id, None)
        self.sick.pop(worker_id, None)
        self.hung.pop(worker_id, None)

    def resume(self, release_id: str) -> bool:
        """A person has looked: the release may continue, with fresh counts. Returns whether it was paused."""
        self._releases.pop(release_id, None)
        was_paused = self.paused.pop(release_id, None) is not None
        if was_paused:
            self._log.info("release.resumed", release_id=release_id)
        return was_paused

    def _release(self, release_id: str) -> ReleaseBreaker:
        return self._releases.setdefault(release_id, ReleaseBreaker())
