"""The open runs of a leader, found by id or idempotency key, and counted by invoker."""

from collections.abc import Iterator

from gen_orchestrator.domain.runs import Run
from gen_orchestrator.scheduling.open_run import OpenRun


class OpenRuns(dict[str, OpenRun]):
    """Run id -> run. Changed only by `enter` and `forget`. A run counts for its invoker until `ended` or `forget`."""

    def __init__(self) -> None:
        super().__init__()
        self._by_key: dict[tuple[str, str], OpenRun] = {}
        self._of_invoker: dict[str, set[str]] = {}

    def same_as(self, run: Run) -> OpenRun | None:
        """The run with this id, otherwise with the owner's idempotency key."""
        there = self.get(run.id)
        if there is None and run.idempotency_key:
            there = self._by_key.get((run.owner, run.idempotency_key))
        return there

    def enter(self, open_run: OpenRun) -> None:
        run = open_run.run
        self[run.id] = open_run
        if run.invoker_id:
            self._of_invoker.setdefault(run.invoker_id, set()).add(run.id)
        if run.idempotency_key:
            self._by_key[run.owner, run.idempotency_key] = open_run

    def forget(self, open_run: OpenRun) -> None:
        """It is over, or was not accepted. A newer run with its id or key stays."""
        run = open_run.run
        there = self.get(run.id)
        if there is open_run:
            del self[run.id]
        if there is None or there is open_run or there.run.invoker_id != run.invoker_id:
            self.ended(run)
        if run.idempotency_key and self._by_key.get((run.owner, run.idempotency_key)) is open_run:
            del self._by_key[run.owner, run.idempotency_key]

    def ended(self, run: Run) -> None:
        """The run is over, or was not accepted: it no longer counts for its invoker. Ids are kept, so that a second
        call has no effect.
        """
        if run.invoker_id and (ids := self._of_invoker.get(run.invoker_id)) is not None:
            ids.discard(run.id)
            if not ids:
                del self._of_invoker[run.invoker_id]

    def count_of(self, invoker_id: str) -> int:
        """How many runs of this invoker are open."""
        return len(self._of_invoker.get(invoker_id, ()))

    def of_release(self, release_id: str) -> int:
        """How many runs of this release are open, including shadow runs."""
        return sum(open_run.run.release_id == release_id for open_run in list(self.values()))

    def runs_of(self, invoker_id: str) -> Iterator[Run]:
        """The invoker's open runs."""
        for run_id in self._of_invoker.get(invoker_id, ()):
            yield self[run_id].run
