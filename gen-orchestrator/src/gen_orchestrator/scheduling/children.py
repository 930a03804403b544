"""Runs started by other runs (`ctx.invoke`): which child belongs to which parent, and what happens when the parent has
ended.

A child is an ordinary run that names its parent. Its idempotency key, which no caller can send, is made of the parent,
the number of the call, the function and the payload. So a retry of the parent finds the existing child. Children that
are still active when the parent ends are canceled.
"""

import asyncio
import hashlib
from collections.abc import Iterable

from gen_orchestrator.domain.runs import Run, RunState
from gen_orchestrator.scheduling.dispatcher import Dispatcher
from gen_orchestrator.scheduling.open_run import OpenRun
from gen_orchestrator.store.base import StoreError
from gen_worker.contract.children import MAX_DEPTH
from gen_worker.log import Log

_PREFIX = "\x1fchild:"  # a header cannot contain it


def child_key(parent_id: str, number: int, fingerprint: str) -> str:
    """The idempotency key of a call."""
    return f"{_PREFIX}{parent_id}:{number}:{fingerprint}"


def fingerprint_of(ref: str, payload: bytes) -> str:
    """Distinguishes calls with the same number."""
    return hashlib.blake2b(ref.encode() + b"\0" + payload, digest_size=16).hexdigest()


def is_child(run: Run) -> bool:
    return run.idempotency_key.startswith(_PREFIX)


class ChildRuns:
    """One for each leader."""

    def __init__(self, dispatcher: Dispatcher, log: Log) -> None:
        self._dispatcher = dispatcher
        self._log = log
        self._of: dict[str, set[str]] = {}  # parent -> open children
        self._tasks: set[asyncio.Task[None]] = set()

    def take_up(self, open_runs: Iterable[OpenRun]) -> None:
        """Register runs left by an earlier leader."""
        open_runs = list(open_runs)
        parents = {open_run.id for open_run in open_runs}
        for open_run in open_runs:
            if is_child(open_run.run):
                self.begun(open_run.run)
        for parent_id in [each for each in self._of if each not in parents]:
            self._cancel(self._of.pop(parent_id))

    def begun(self, child: Run) -> None:
        """A child run has begun."""
        self._of.setdefault(child.parent_id, set()).add(child.id)

    def ended(self, run: Run) -> None:
        """Any run has ended."""
        if children := self._of.pop(run.id, None):
            self._cancel(children)
        if is_child(run) and (siblings := self._of.get(run.parent_id)) is not None:
            siblings.discard(run.id)
            if not siblings:
                del self._of[run.parent_id]

    def depth(self, run: Run) -> int:
        """How many runs wait for one another, including this one; counts to at most one more than allowed."""
        depth = 1
        while is_child(run) and depth <= MAX_DEPTH:
            parent = self._dispatcher.open.get(run.parent_id)
            if parent is None:
                break
            run, depth = parent.run, depth + 1
        return depth

    def _cancel(self, run_ids: Iterable[str]) -> None:
        for run_id in run_ids:
            task = asyncio.get_running_loop().create_task(self._cancel_one(run_id), name=f"cancel {run_id}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _cancel_one(self, run_id: str) -> None:
        try:
            await self._dispatcher.cancel(run_id)
        except StoreError as exc:
            self._log.warning("child.not_canceled", run_id=run_id, error=str(exc))


def may_answer(there: Run) -> bool:
    """Whether an existing run can answer a call: one that is running, or that succeeded. A failed one is run again."""
    return not there.is_final or there.state is RunState.SUCCEEDED
