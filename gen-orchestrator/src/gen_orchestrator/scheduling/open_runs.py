"""The runs of a leader that are not over, found by id and by idempotency key."""

from gen_orchestrator.domain.runs import Run
from gen_orchestrator.scheduling.open_run import OpenRun


class OpenRuns(dict[str, OpenRun]):
    """Run id -> run. Changed only by `enter` and `forget`."""

    def __init__(self) -> None:
        super().__init__()
        self._by_key: dict[tuple[str, str], OpenRun] = {}

    def same_as(self, run: Run) -> OpenRun | None:
        """The run with this one's id, or else with its owner's idempotency key."""
        there = self.get(run.id)
        if there is None and run.idempotency_key:
            there = self._by_key.get((run.owner, run.idempotency_key))
        return there

    def enter(self, open_run: OpenRun) -> None:
        run = open_run.run
        self[run.id] = open_run
        if run.idempotency_key:
            self._by_key[run.owner, run.idempotency_key] = open_run

    def forget(self, open_run: OpenRun) -> None:
        """It is over, or was never ours. Another one that has taken its id or key since stays."""
        run = open_run.run
        if self.get(run.id) is open_run:
            del self[run.id]
        if run.idempotency_key and self._by_key.get((run.owner, run.idempotency_key)) is open_run:
            del self._by_key[run.owner, run.idempotency_key]
