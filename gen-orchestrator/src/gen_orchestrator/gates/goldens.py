"""Golden requests: kept with their endpoint, and run against a release before a tag moves to it.

Their runs are ordinary runs with low priority, addressed by the release's id. `invoker_id` marks them, so no caller is charged;
`parent_id` is the run from which the golden request was made. Neither a release nor a golden request ever changes, so a recent pass is
reused for the next function's promote.
"""

import asyncio
import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from gen_orchestrator.domain.gates import GateResult, Golden, judged
from gen_orchestrator.domain.runs import Run, RunState
from gen_orchestrator.gates.file_distances import FileDistances
from gen_orchestrator.gates.outputs import output_of
from gen_orchestrator.hub.files import RunFiles
from gen_orchestrator.hub.registry import NotFoundError, Registry
from gen_orchestrator.scheduling.dispatcher import Dispatcher
from gen_orchestrator.scheduling.heard import is_session
from gen_orchestrator.scheduling.intake import AdmissionError, ReleaseGoneError
from gen_orchestrator.scheduling.open_run import OpenRun
from gen_orchestrator.scheduling.run_ids import new_run_id
from gen_orchestrator.store.base import Store, StoreError

INVOKER = "gate:golden"
MAX_GOLDENS = 200  # for one endpoint
AT_ONCE = 4
LIMIT_S = 600.0
LOOK_S = 1.0
FRESH_S = 600.0


class GoldenError(ValueError):
    """This run cannot become a golden request; the message says why."""


class Goldens:
    """One for each leader. `paused`: releases that get no worker, and why."""

    def __init__(
        self,
        registry: Registry,
        dispatcher: Dispatcher,
        store: Store,
        files: RunFiles,
        paused: Mapping[str, str],
        now_s: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._dispatcher = dispatcher
        self._store = store
        self._files = files
        self._paused = paused
        self._now_s = now_s

    async def add(self, run: Run, tolerance: float) -> Golden:
        """Store a correct run as a golden request; `GoldenError` when that is impossible."""
        if run.state is not RunState.SUCCEEDED:
            raise GoldenError(f"run {run.id} is {run.state}; expected one that has succeeded")
        if is_session(run):
            raise GoldenError(f"run {run.id} was a realtime session, whose frames are not stored")
        if not (math.isfinite(tolerance) and 0 <= tolerance <= 1):
            raise GoldenError(f"tolerance {tolerance}; expected a number from 0 (the same) to 1 (any number will do)")
        known = await asyncio.to_thread(self._store.goldens, run.owner, run.endpoint)
        if len(known) >= MAX_GOLDENS:
            raise GoldenError(f"{run.owner}/{run.endpoint} has {len(known)} golden requests, which is the limit; remove one first")
        output = await asyncio.to_thread(output_of, run, self._store)
        if output is None:
            raise GoldenError(f"the items that run {run.id} streamed are no longer kept; run it again, and add that run")
        golden = Golden(
            golden_id=f"g-{secrets.token_hex(6)}",
            owner=run.owner,
            endpoint=run.endpoint,
            function=run.function,
            run_id=run.id,
            input=run.payload,
            output=msgspec.json.encode(output),
            tolerance=tolerance,
            created_at=self._now_s(),
        )
        await asyncio.to_thread(self._store.add_golden, golden)
        return golden

    async def check(self, release_id: str, functions: Sequence[str] = (), *, again: bool = False) -> list[GateResult]:
        """Run the golden requests of these functions (of all, if none is named) against a release, and store the
        results. Without `again`, one that has passed within ten minutes is not run again.
        """
        release = self._registry.release(release_id)
        goldens = await asyncio.to_thread(self._store.goldens, release.owner, release.endpoint)
        wanted = [golden for golden in goldens if not functions or golden.function in functions]
        if not wanted:
            return []
        since = math.inf if again else self._now_s() - FRESH_S
        before = await asyncio.to_thread(self._store.results, release_id)
        passed = {each.subject: each for each in before if each.kind == "golden" and each.passed and each.at > since}
        turn = asyncio.Semaphore(AT_ONCE)

        async def one(golden: Golden) -> GateResult:
            async with turn:
                return await self._judge(golden, release_id)

        found = await asyncio.gather(*(one(golden) for golden in wanted if golden.golden_id not in passed))
        await asyncio.to_thread(self._store.save_results, found)
        done = {each.subject: each for each in found} | passed
        return [done[golden.golden_id] for golden in wanted]

    async def _judge(self, golden: Golden, release_id: str) -> GateResult:
        run, error = await self._run(golden, release_id)
        return await asyncio.to_thread(self._compare, golden, release_id, run, error)

    def _compare(self, golden: Golden, release_id: str, run: Run | None, error: str) -> GateResult:
        output: Any = None
        distances: FileDistances | None = None
        if run is not None and run.state is RunState.SUCCEEDED:
            output = output_of(run, self._store)
            first = self._store.get(golden.run_id)
            distances = FileDistances(self._files, first, run) if first is not None else None
        return judged(golden, release_id, run, output, error, self._now_s(), distances)

    async def _run(self, golden: Golden, release_id: str) -> tuple[Run | None, str]:
        """The run made from a golden request, and why it has not ended or was not made."""
        tag = f"@{release_id}"
        try:
            resolved = self._registry.resolve(golden.owner, golden.endpoint, golden.function, tag)
        except NotFoundError as exc:
            return None, str(exc)
        settings, now = resolved.settings, time.time()
        run = Run(
            id=new_run_id(),
            owner=golden.owner,
            endpoint=golden.endpoint,
            function=golden.function,
            tag=tag,
            release_id=release_id,
            payload=golden.input,
            created_at=now,
            max_attempts=settings.max_attempts,
            priority="low",
            timeout_ms=round(settings.timeout_s * 1000),
            invoker_id=INVOKER,
            parent_id=golden.run_id,
        )
        try:
            submitted = await self._dispatcher.submit(run, self._dispatcher.lanes.lane(release_id, golden.function, settings))
        except (AdmissionError, ReleaseGoneError) as exc:
            return None, f"it was not run: {exc}"
        assert submitted.open is not None, "a run of a new id is open"
        return await self._end_of(submitted.open)

    async def _look(self, open_run: OpenRun) -> bool:
        try:
            return await open_run.wait(LOOK_S)
        except asyncio.CancelledError:  # nobody waits for the result any more
            # the store does not answer, or this node no longer leads: the run ends at its time limit
            with suppress(StoreError, TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._dispatcher.cancel(open_run.id)
            raise

    async def _end_of(self, open_run: OpenRun) -> tuple[Run, str]:
        release_id, deadline_s = open_run.run.release_id, time.monotonic() + LIMIT_S
        why = ""
        while not await self._look(open_run):
            if release_id in self._paused:
                why = f"no worker runs the release: {self._paused[release_id]}"
            elif time.monotonic() > deadline_s:
                why = f"it did not end within {LIMIT_S:.0f} s"
            if why:
                await self._dispatcher.cancel(open_run.id)
                break
        return open_run.run, why
