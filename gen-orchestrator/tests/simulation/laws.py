"""The laws that must hold in every simulated world, checked while it runs and at its end."""

from typing import Any

import msgspec

from gen_orchestrator.domain.losses import MAX_LOST_WORKERS, is_kept_apart
from gen_orchestrator.domain.runs import Run, RunState
from gen_orchestrator.scheduling.feed import Feed, decode_entries
from gen_orchestrator.store.memory import MemoryStore
from gen_orchestrator.store.ops import Finish

Try = tuple[str, int]  # run and attempt


class BrokenLawError(AssertionError):
    """A law does not hold; the text names it."""


class Watch:
    """Sees what the world does, and judges it."""

    def __init__(self) -> None:
        self._executions: list[tuple[str, str, int]] = []  # run, worker and attempt, by execution number
        self._answered: dict[str, set[str]] = {}
        self._won: set[str] = set()
        self._fed: dict[str, dict[tuple[int, int], bytes]] = {}
        self._places: dict[Try, set[tuple[str, int]]] = {}  # the processes that began it
        self._leased: dict[str, dict[Try, bool]] = {}  # worker -> what it has, and whether that is to be alone
        self._met: dict[Try, dict[Try, bool]] = {}  # what was leased to the same worker meanwhile

    def began(self, run_id: str, worker_id: str, instance: int, attempt: int) -> int:
        """A process of a worker begins to execute a run."""
        self._executions.append((run_id, worker_id, attempt))
        self._places.setdefault((run_id, attempt), set()).add((worker_id, instance))
        return len(self._executions) - 1

    def answered(self, key: str, run_id: str) -> None:
        """A client was told that its run is accepted."""
        self._answered.setdefault(key, set()).add(run_id)

    def cancel_won(self, run_id: str) -> None:
        """A client was told that its cancel is recorded."""
        self._won.add(run_id)

    def saw(self, before: Run | None, after: Run | None, finish: Finish | None) -> None:
        """The store did something to a run."""
        if before is None:
            return
        _must(after is not None, "L1 a run is never forgotten")
        assert after is not None
        if before.is_final:
            _must(after == before, f"L2 the final state of {before.id} changed")
        _must(after.attempt >= before.attempt, f"L5 the attempts of {before.id} fell")
        self._note_lease(before, after)
        if after.state is RunState.FAILED and after.error is not None and after.error.code == "worker_lost":
            _must(before.lost_workers >= 1, f"{before.id} was given up after one worker")
            neighbours = self._neighbours((before.id, before.attempt))
            _must(
                not neighbours or before.lost_workers + 1 >= MAX_LOST_WORKERS,
                f"{before.id} was given up for a worker that {neighbours} may have ended",
            )
        if finish is not None and after.is_final and not before.is_final and after.state is RunState.SUCCEEDED:
            run_id, worker_id, attempt = self._executions[msgspec.msgpack.decode(after.output)["execution"]]
            _must(run_id == after.id, f"L3 {after.id} has the result of {run_id}")
            _must(attempt == after.attempt, f"L3 attempt {after.attempt} of {after.id} has the result of attempt {attempt}")
            _must(worker_id == after.worker_id, f"L3 the result of {after.id} is of {worker_id}, its lease of {after.worker_id}")

    def _note_lease(self, before: Run, after: Run) -> None:
        if before.state is RunState.LEASED and (after.state, after.attempt) != (RunState.LEASED, before.attempt):
            self._leased[before.worker_id].pop((before.id, before.attempt), None)
        if after.state is RunState.LEASED and after.attempt != before.attempt:
            mine, alone = (after.id, after.attempt), is_kept_apart(after)
            others = self._leased.setdefault(after.worker_id, {})
            for other, other_alone in others.items():
                self._met.setdefault(mine, {})[other] = self._met.setdefault(other, {})[mine] = alone or other_alone
            others[mine] = alone

    def _neighbours(self, mine: Try) -> list[Try]:
        """What ran in the same process, as far as anybody was told to."""
        places = self._places.get(mine, set())
        return [other for other in self._met.get(mine, ()) if places & self._places.get(other, set())]

    def read(self, run_id: str, feed: Feed) -> None:
        """A reader looks at a run's events."""
        seen = self._fed.setdefault(run_id, {})
        last: dict[int, int] = {}
        for entry in feed.after((0, 0)):
            place = (entry.attempt, entry.seq)
            if entry.attempt in last:
                _must(entry.seq == last[entry.attempt] + 1, f"L6 {run_id}: {last[entry.attempt]} is followed by {place}")
            last[entry.attempt] = entry.seq
            _must(seen.setdefault(place, bytes(entry.data)) == bytes(entry.data), f"L6 {run_id}: event {place} is another one now")

    def judge(self, store: MemoryStore, *, unanswered: int) -> None:
        """The faults are over and the world has settled."""
        _must(unanswered == 0, f"L1 {unanswered} clients still wait: {[(r.id, r.state, r.attempt) for r in store.open_runs()]}")
        for key, run_ids in self._answered.items():
            _must(len(run_ids) == 1, f"L4 {key} has {len(run_ids)} runs")
        for run_ids in self._answered.values():
            for run_id in run_ids:
                self._judge_run(store, run_id)
        _must(not store.open_runs(), "L1 a run that was accepted has no end")
        for mine, met in self._met.items():
            for other in self._neighbours(mine):
                _must(not met[other], f"{mine} and {other} share a process, and one of them is to be alone")

    def _judge_run(self, store: MemoryStore, run_id: str) -> None:
        run = store.get(run_id)
        _must(run is not None and run.is_final, f"L1 {run_id} has no end")
        assert run is not None
        _must(run.executions <= run.attempt, f"L5 {run_id}: {run.executions} executions in {run.attempt} attempts")
        _must(run_id not in self._won or run.state is RunState.CANCELED, f"L9 {run_id} was canceled, then {run.state}")
        stored: dict[int, list[Any]] = {}
        for chunk in store.events_of(run_id):
            stored.setdefault(chunk.attempt, []).extend(decode_entries(iter([chunk.events])))
        for attempt, entries in stored.items():
            numbers = [entry.seq for entry in entries]
            _must(numbers == list(range(1, len(numbers) + 1)), f"L6 {run_id}: attempt {attempt} has events {numbers}")
            said = [tuple(msgspec.json.decode(entry.data)) for entry in entries if entry.name == "output"]
            _must(len(said) == len(set(said)), f"L6 {run_id}: attempt {attempt} says something twice: {said}")
            for entry in entries:
                told = self._fed.get(run_id, {}).get((entry.attempt, entry.seq))
                _must(told in (None, bytes(entry.data)), f"L6 {run_id}: a reader saw another event at {attempt}-{entry.seq}")
        if run.state is RunState.SUCCEEDED:
            execution = msgspec.msgpack.decode(run.output)["execution"]
            mine = [msgspec.json.decode(entry.data)[0] for entry in stored.get(run.attempt, ()) if entry.name == "output"]
            _must(set(mine) <= {execution}, f"L6 {run_id}: the events of executions {set(mine)} lead to the result of {execution}")


def _must(holds: bool, law: str) -> None:
    if not holds:
        raise BrokenLawError(law)
