"""Canaries: which runs take part, and when a candidate counts as worse."""

import asyncio
import io
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import eventually

from gen_orchestrator.auth.keys import Keys
from gen_orchestrator.domain import shadow
from gen_orchestrator.domain.canary import MIN_RUNS, Ended, ended, takes_part, verdict
from gen_orchestrator.domain.runs import Run, RunState
from gen_orchestrator.gates.canary import Canaries
from gen_orchestrator.hub.registry import Registry
from gen_orchestrator.store.memory import MemoryStore
from gen_worker.clock import SystemClock
from gen_worker.contract.manifest import FunctionEntry, Manifest
from gen_worker.log import Log

RUNS = st.lists(st.builds(Ended, st.booleans(), st.floats(0, 1000)), max_size=60)
GOOD, BAD = Ended(False, 1.0), Ended(True, 1.0)


@given(st.text(), st.floats(0, 100), st.floats(0, 100))
def test_a_larger_share_keeps_the_runs_of_a_smaller_one(run_id: str, one: float, other: float) -> None:
    assert takes_part(run_id, one) == takes_part(run_id, one)
    assert takes_part(run_id, min(one, other)) <= takes_part(run_id, max(one, other))
    assert (takes_part(run_id, 0), takes_part(run_id, 100)) == (False, True)


@pytest.mark.parametrize("percent", [1, 10, 50, 99])
def test_the_share_is_what_was_asked_for(percent: float) -> None:
    part = sum(takes_part(f"{number:020x}", percent) for number in range(20_000))
    assert abs(part / 20_000 - percent / 100) < 0.015


@given(RUNS, RUNS)
def test_nothing_is_said_of_few_runs_or_of_what_is_as_good(mine: list[Ended], other: list[Ended]) -> None:
    assert verdict(mine[: MIN_RUNS - 1], other) == ""
    assert verdict(mine, mine) == ""
    assert verdict([GOOD] * len(mine), [GOOD] * len(other)) == ""


@given(RUNS.filter(lambda runs: len(runs) >= MIN_RUNS), RUNS)
def test_failing_more_never_helps(mine: list[Ended], other: list[Ended]) -> None:
    if "failed" in verdict(mine, other):
        assert "failed" in verdict([*mine, BAD], other)
        assert "failed" in verdict([BAD] * len(mine), other)


@pytest.mark.parametrize(
    ("mine", "other", "word"),
    [
        ([BAD] * 10, [], "100% of its last 10 runs failed, and 0%"),
        ([BAD] * 10, [BAD] * 10, ""),
        ([BAD] * 2 + [GOOD] * 8, [GOOD] * 50, "20% of its last 10 runs failed"),
        ([BAD] + [GOOD] * 9, [GOOD] * 50, ""),
        ([Ended(False, 1.6)] * 10, [GOOD] * 10, "1.600 s in the median"),
        ([Ended(False, 1.6)] * 10, [GOOD] * 9, ""),
        ([Ended(False, 1.4)] * 10, [GOOD] * 10, ""),
        ([Ended(False, 0.004)] * 10, [Ended(False, 0.001)] * 10, ""),
        ([Ended(False, 90.0)] + [GOOD] * 9, [GOOD] * 10, ""),
    ],
)
def test_what_is_worse(mine: list[Ended], other: list[Ended], word: str) -> None:
    found = verdict(mine, other)
    assert word in found
    assert bool(found) == bool(word)


class SetClock(SystemClock):
    """The machine's clock, set by `off_s`."""

    off_s = 0.0

    def unix_s(self) -> float:  # type: ignore[override]
        return time.time() + self.off_s


class Platform:
    """A tag that points at one release, and has another as its candidate."""

    def __init__(self) -> None:
        self.store = MemoryStore(time.time)
        self.registry = Registry(self.store)
        functions = (FunctionEntry(name="draw", python_name="draw", module="m"),)
        manifest = msgspec.json.encode(Manifest(endpoint_name="e", functions=functions))
        self.old, self.new = (self.registry.add("ann", manifest, source).release_id for source in ("/one", "/two"))
        tag = self.registry.move("ann", "e", "draw", "prod", self.old)
        self.candidate = self.registry.set_candidate(tag, self.new, 50)
        self.paused: dict[str, str] = {}
        self.told: list[str] = []
        keys = Keys(self.store, time.time)
        self.clock = SetClock()
        log = Log(io.StringIO())
        self.canaries = Canaries(self.registry, self.store, keys, self.paused, self.clock, log, lambda: self.told.append("dropped"))

    def run(self, run_id: str, state: RunState = RunState.SUCCEEDED) -> Run:
        """A run of the tag that has ended, on the release that its id says."""
        now = time.time()
        run = Run(
            id=run_id, owner="ann", endpoint="e", function="draw", tag="prod", release_id="", payload=b"", created_at=now, state=state,
            started_at=now, finished_at=now + 1,
        )  # fmt: skip
        routed = self.registry.routed(self.registry.resolve("ann", "e", "draw", "prod"), run)
        assert routed.tag == "prod"
        return msgspec.structs.replace(run, release_id=routed.release_id)

    def over(self, run: Run, accepted_s: float | None = None) -> None:
        self.canaries.ended(run, time.monotonic() if accepted_s is None else accepted_s)

    @property
    def has_candidate(self) -> bool:
        return self.registry.candidate("ann", "e", "draw", "prod") is not None


MINE, OTHERS = ([each for each in map(str, range(200)) if takes_part(each, 50) == wanted] for wanted in (True, False))


def test_a_candidate_that_no_worker_runs_is_dropped() -> None:
    async def scenario() -> None:
        platform = Platform()
        platform.over(platform.run(OTHERS[0]))
        assert platform.has_candidate
        platform.paused[platform.new] = "its workers crash"
        platform.over(platform.run(OTHERS[1]))  # it is of the tag's release: of the candidate none ends
        await eventually(lambda: platform.told)
        assert not platform.has_candidate
        assert platform.store.candidates() == []
        (result,) = platform.store.results(platform.new)
        assert (result.kind, result.passed, b"its workers crash" in result.detail) == ("canary", False, True)
        (row,) = platform.store.audit("ann", 9)
        assert (row.action, row.actor) == ("canary.dropped", "gate:canary")
        assert platform.run(MINE[0]).release_id == platform.old

    asyncio.run(scenario())


def test_a_candidate_is_judged_by_its_own_runs_alone() -> None:
    async def scenario() -> None:
        platform = Platform()
        for run_id in OTHERS:
            platform.over(platform.run(run_id))
        for run_id in MINE[:50]:
            platform.over(platform.run(run_id, RunState.CANCELED))
        for run_id in MINE[: MIN_RUNS - 1]:
            platform.over(platform.run(run_id, RunState.FAILED))
        platform.over(platform.run(MINE[0], RunState.FAILED), time.monotonic() - 60)
        assert platform.has_candidate
        platform.over(platform.run(MINE[MIN_RUNS], RunState.FAILED))
        await eventually(lambda: platform.told)
        assert not platform.has_candidate

    asyncio.run(scenario())


@pytest.mark.parametrize("off_s", [-3600.0, 3600.0])
def test_a_candidate_is_judged_whatever_the_clock_is_set_to(off_s: float) -> None:
    async def scenario() -> None:
        platform = Platform()
        platform.canaries.look()
        platform.clock.off_s = off_s
        for run_id in MINE[:MIN_RUNS]:
            run = platform.run(run_id, RunState.FAILED)
            platform.over(msgspec.structs.replace(run, created_at=run.created_at + off_s))
        await eventually(lambda: platform.told)
        assert not platform.has_candidate

    asyncio.run(scenario())


def test_what_moves_the_tag_ends_the_canary() -> None:
    for target in ("new", "old"):
        platform = Platform()
        platform.registry.move("ann", "e", "draw", "prod", getattr(platform, target))
        assert not platform.has_candidate
        assert Registry(platform.store).candidates() == []
    assert platform.new not in platform.registry.in_use()
    assert not platform.registry.drop_candidate(platform.candidate)


def test_what_counts_of_a_run_that_is_over() -> None:
    fields = {
        "id": "r",
        "owner": "o",
        "endpoint": "e",
        "function": "f",
        "tag": "prod",
        "release_id": "rel",
        "payload": b"",
        "created_at": 1.0,
    }
    for state, started_at, expected in (
        (RunState.SUCCEEDED, 2.0, Ended(False, 3.0)),
        (RunState.FAILED, 2.0, Ended(True, 3.0)),
        (RunState.EXPIRED, 0.0, Ended(True, 0.0)),
        (RunState.SUCCEEDED, 6.0, Ended(False, 0.0)),  # a clock that was set back
        (RunState.CANCELED, 2.0, None),
    ):
        assert ended(Run(**fields, state=state, started_at=started_at, finished_at=5.0)) == expected  # type: ignore[arg-type]


def test_shares_of_two_things_are_independent() -> None:
    ids = [f"{number:020x}" for number in range(20_000)]
    both = sum(takes_part(run_id, 50) and shadow.takes_part(run_id, 50) for run_id in ids)
    assert abs(both / len(ids) - 0.25) < 0.015
    assert [takes_part(run_id, 30) for run_id in ("a", "b", "c", "d")] == [
        takes_part(run_id, 30, b"canary") for run_id in ("a", "b", "c", "d")
    ]
