"""Repeats runs of a tag on another release and keeps the results of the comparison (`domain/shadow`).

A copy is a run of the dispatcher that is never stored and that no caller sees. It starts only if a worker of the other release is free at
that moment and no run waits for the tag's release; otherwise it is counted as dropped. The shadow and its counts are in the store: after
a restart it continues, without the copies that were in progress.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import msgspec

from gen_orchestrator.auth.keys import Keys
from gen_orchestrator.domain import shadow as domain
from gen_orchestrator.domain.access import ALL_OWNERS, Caller
from gen_orchestrator.domain.comparison import Difference, differences
from gen_orchestrator.domain.gates import GateResult
from gen_orchestrator.domain.runs import Run, RunState
from gen_orchestrator.domain.shadow import Shadow, Tally, percentile
from gen_orchestrator.gates.file_distances import FileDistances
from gen_orchestrator.gates.images import can_decode
from gen_orchestrator.gates.outputs import items_of, json_of
from gen_orchestrator.hub.files import RunFiles
from gen_orchestrator.hub.registry import NotFoundError, Registry
from gen_orchestrator.scheduling.dispatcher import Dispatcher
from gen_orchestrator.scheduling.open_run import OpenRun
from gen_orchestrator.scheduling.run_ids import new_run_id
from gen_orchestrator.store.base import Store, StoreError
from gen_worker.log import Log
from gen_worker.texts import counted

INVOKER = "gate:shadow"
PREFIX = "shadow-"  # prefix of the ids of shadow runs, by which their files are found
AT_ONCE = 2  # shadow runs of all tags together
SAVE_S = 2.0
_ITSELF = Caller(ALL_OWNERS, (), INVOKER)
_IN_RESULT = ("against", "percent", "compared", "equal", "different", "failed", "dropped", "seconds", "images", "by_digest", "examples")
_decode_tally = msgspec.json.Decoder(Tally).decode
Place = tuple[str, str, str, str]


class Shadows:
    """One for each leader. `paused`: releases that get no worker, and why; `wake` asks for a worker of a release;
    `on_changed` is called when a shadow has begun or ended. `stop` ends the shadow runs.
    """

    def __init__(
        self,
        registry: Registry,
        dispatcher: Dispatcher,
        store: Store,
        files: RunFiles,
        keys: Keys,
        paused: Mapping[str, str],
        wake: Callable[[str], None],
        now_s: Callable[[], float],
        log: Log,
        on_changed: Callable[[], None],
    ) -> None:
        self._registry = registry
        self._dispatcher = dispatcher
        self._store = store
        self._files = files
        self._keys = keys
        self._paused = paused
        self._wake = wake
        self._now_s = now_s
        self._log = log
        self._on_changed = on_changed
        self._tallies = {each.place: _tally_of(each) for each in registry.shadows()}
        self._running = {each.place for each in registry.shadows() if not each.ended_at}
        self._copies: dict[asyncio.Task[None], Shadow] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._unsaved: set[Place] = set()
        self._saving = asyncio.Lock()
        self._is_stopped = False
        self.unfit: set[str] = set()  # shadow runs that called other functions, which they must not do

    async def clean(self) -> None:
        """Delete files saved by shadow runs of an earlier process. Called before the first one begins."""

        def remove() -> None:
            for owner, run_id in self._files.runs_named(PREFIX):
                if self._store.get(run_id) is None:  # a caller may have chosen such an id
                    self._files.remove(owner, run_id)

        try:
            await asyncio.to_thread(remove)
        except OSError as exc:  # they do no harm, and the next start tries again
            self._log.warning("shadow.files_kept", error=str(exc))

    async def start(self, shadow: Shadow, caller: Caller) -> None:
        """Begin a shadow, replacing the tag's earlier one."""
        self._running.discard(shadow.place)
        self._stop_copies(shadow.place)
        async with self._saving:
            await asyncio.to_thread(self._registry.put_shadow, shadow)
            self._tallies[shadow.place] = Tally()
            self._unsaved.discard(shadow.place)
        self._running.add(shadow.place)
        detail = f"{shadow.release_id} {shadow.percent:g}%"
        await asyncio.to_thread(self._keys.note, caller, shadow.owner, "shadow.started", _subject(shadow), detail)
        self._on_changed()

    async def end(self, place: Place, why: str, caller: Caller = _ITSELF) -> None:
        """End it for good; its results stay."""
        shadow = self._registry.shadow(place)
        if shadow is None or shadow.ended_at:
            return
        self._running.discard(place)
        self._stop_copies(place)
        async with self._saving:
            shadow = self._registry.shadow(place)
            if shadow is None or shadow.ended_at:
                return
            ended = msgspec.structs.replace(shadow, ended_at=self._now_s(), why=why)
            try:
                await asyncio.to_thread(self._save, ended)
            except StoreError:
                self._running.add(place)
                raise
        detail = f"{shadow.release_id}: {why}"
        await asyncio.to_thread(self._keys.note, caller, shadow.owner, "shadow.ended", _subject(shadow), detail)
        self._log.info("shadow.ended", ref=_subject(shadow), release_id=shadow.release_id, why=why)
        self._on_changed()

    async def stop(self) -> None:
        """This leadership ends: stop the shadow runs, and store the counts. The shadows continue with the next leadership."""
        self._is_stopped = True
        for task in self._copies:
            task.cancel()
        await asyncio.gather(*self._copies, *self._tasks, return_exceptions=True)
        await self._save_changed()

    def report(self, shadow: Shadow) -> dict[str, Any]:
        """Its results so far, as callers see them."""
        return report(shadow, self._tallies.get(shadow.place) or _tally_of(shadow))

    def tag_moved(self) -> None:
        """A tag has moved: end a shadow whose tag points elsewhere now."""
        for place in list(self._running):
            shadow = self._registry.shadow(place)
            if shadow is not None and (why := self._why_over(shadow)):
                self._soon(self.end(place, why))

    def ended(self, open_run: OpenRun) -> None:
        """A caller's run has ended."""
        run = open_run.run
        if not self._running or self._is_stopped:
            return
        place = (run.owner, run.endpoint, run.function, run.tag)
        if place not in self._running:
            return
        shadow = self._registry.shadow(place)
        assert shadow is not None, "it is running"
        if why := self._why_over(shadow):
            self._running.discard(place)
            self._soon(self.end(place, why))
        elif (
            run.state is RunState.SUCCEEDED
            and open_run.session is None  # a session's input is not stored
            and run.release_id == shadow.against
            and run.created_at >= shadow.since
            and domain.takes_part(run.id, shadow.percent)
        ):
            self._copy(shadow, open_run)

    def _why_over(self, shadow: Shadow) -> str:
        if shadow.release_id in self._paused:
            return f"no worker runs it: {self._paused[shadow.release_id]}"
        try:
            now = self._registry.resolve(*shadow.place).release_id
        except NotFoundError:
            return "the tag is gone"
        if now == shadow.release_id:
            return "the tag points at it now"
        return f"the tag points at {now} now, no longer at {shadow.against}" if now != shadow.against else ""

    def _copy(self, shadow: Shadow, first: OpenRun) -> None:
        began = self._begin(shadow, first) if len(self._copies) < AT_ONCE and not len(first.lane.queue) else None
        if began is None:
            self._tallies[shadow.place].dropped += 1
            self._changed(shadow)
            return
        expected = None if first.run.output else items_of(first)
        task = asyncio.get_running_loop().create_task(self._follow(shadow, first.run, expected, began), name=began.id)
        self._copies[task] = shadow
        task.add_done_callback(self._copies.pop)

    def _stop_copies(self, place: Place) -> None:
        for task, shadow in self._copies.items():
            if shadow.place == place:
                task.cancel()

    def _begin(self, shadow: Shadow, first: OpenRun) -> OpenRun | None:
        run = first.run
        try:
            settings = self._registry.settings(shadow.release_id, shadow.function)
        except NotFoundError:
            return None
        lane = self._dispatcher.lanes.lane(shadow.release_id, shadow.function, settings)
        limit_s = domain.limit_s(_took_s(run), settings.timeout_s)
        copy = Run(
            id=f"{PREFIX}{new_run_id()}",
            owner=run.owner,
            endpoint=run.endpoint,
            function=run.function,
            tag=f"@{shadow.release_id}",
            release_id=shadow.release_id,
            payload=run.payload,
            created_at=self._now_s(),
            max_attempts=1,
            priority="low",
            timeout_ms=round(limit_s * 1000),
            invoker_id=INVOKER,
            parent_id=run.id,
        )
        began = self._dispatcher.shadow(copy, lane)
        if began is None:
            self._wake(shadow.release_id)
        return began

    async def _follow(self, shadow: Shadow, first: Run, expected: list[msgspec.Raw] | None, copy: OpenRun) -> None:
        """Wait for a shadow run, and count its result."""
        try:
            await copy.wait(None)
            run = copy.run
            if run.state is not RunState.CANCELED and copy.is_over:
                await self._judge(shadow, first, expected, copy)
            else:  # it was stopped in favour of a run, or this program ends
                self._count(shadow, lambda tally: setattr(tally, "dropped", tally.dropped + 1))
        finally:
            if not copy.is_over:
                await self._dispatcher.cancel(copy.id)
            await asyncio.to_thread(self._files.remove, shadow.owner, copy.id)

    async def _judge(self, shadow: Shadow, first: Run, expected: list[msgspec.Raw] | None, copy: OpenRun) -> None:
        run, apart, error, by_digest = copy.run, list[Difference](), "", 0
        if copy.id in self.unfit:
            self.unfit.discard(copy.id)
            self._soon(self.end(shadow.place, "the function calls other functions (ctx.invoke), which a shadow run cannot"))
            return
        if run.state is not RunState.SUCCEEDED:
            error = f"{run.error.message} ({run.error.code})" if run.error is not None else f"the run is {run.state}"
        else:
            streamed = None if run.output else items_of(copy)
            if (not first.output and expected is None) or (not run.output and streamed is None):
                self._count(shadow, lambda tally: setattr(tally, "dropped", tally.dropped + 1))  # the stream is too long to be compared
                return
            apart, by_digest = await asyncio.to_thread(self._compare, shadow, first, expected, run, streamed)

        def count(tally: Tally) -> None:
            tally.by_digest += by_digest
            tally.count(first.id, error, apart, _took_s(first), _took_s(run))

        self._count(shadow, count)
        tally = self._tallies[shadow.place]
        if shadow.runs and tally.compared >= shadow.runs:
            self._running.discard(shadow.place)
            self._soon(self.end(shadow.place, f"{counted(shadow.runs, 'run was', 'runs were')} compared, as many as requested"))

    def _compare(
        self, shadow: Shadow, first: Run, expected: list[msgspec.Raw] | None, copy: Run, streamed: list[msgspec.Raw] | None
    ) -> tuple[list[Difference], int]:
        """Where the outputs differ, and how many images could only be compared by their digests. Blocking."""
        distances = FileDistances(self._files, first, copy)
        values = [
            [msgspec.json.decode(item) for item in items] if items is not None else json_of(run.output)
            for run, items in ((first, expected), (copy, streamed))
        ]
        return differences(values[0], values[1], shadow.tolerance, distances), distances.by_digest

    def _count(self, shadow: Shadow, change: Callable[[Tally], None]) -> None:
        now = self._registry.shadow(shadow.place)
        if now is not None and now.since == shadow.since and not now.ended_at:  # not for one that was replaced meanwhile
            change(self._tallies[shadow.place])
            self._changed(shadow)

    def _changed(self, shadow: Shadow) -> None:
        is_first = not self._unsaved
        self._unsaved.add(shadow.place)
        if is_first and not self._is_stopped:
            asyncio.get_running_loop().call_later(SAVE_S, lambda: self._soon(self._save_changed()))

    async def _save_changed(self) -> None:
        async with self._saving:
            places, self._unsaved = self._unsaved, set()
            for place in places:
                shadow = self._registry.shadow(place)
                if shadow is None or shadow.ended_at:
                    continue
                try:
                    await asyncio.to_thread(self._save, shadow)
                except StoreError as exc:  # it is written with the next count
                    self._log.warning("shadow.not_saved", ref=_subject(shadow), error=str(exc))

    def _save(self, shadow: Shadow) -> None:
        tally = self._tallies[shadow.place]
        self._registry.put_shadow(msgspec.structs.replace(shadow, tally=msgspec.json.encode(tally)))
        is_paused = shadow.release_id in self._paused
        if not tally.compared and not is_paused:
            return
        detail = {name: value for name, value in report(shadow, tally).items() if name in _IN_RESULT}
        if is_paused:
            detail["error"] = shadow.why
        result = GateResult(
            release_id=shadow.release_id,
            function=shadow.function,
            kind="shadow",
            subject=shadow.tag,
            owner=shadow.owner,
            passed=tally.passed and not is_paused,
            detail=msgspec.json.encode(detail),
            at=self._now_s(),
        )
        self._store.save_results([result])

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(self._guarded(work), name="shadow")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except StoreError as exc:  # the tag's next run leads here again
            self._log.warning("shadow.not_saved", error=str(exc))


def report(shadow: Shadow, tally: Tally) -> dict[str, Any]:
    """A shadow and its results, as callers see them. Seconds are from a run's lease to its end; `images` says how images are compared."""
    fields = {name: getattr(shadow, name) for name in Shadow.__struct_fields__ if name != "tally"}
    counts = {name: getattr(tally, name) for name in ("compared", "equal", "different", "failed", "dropped", "by_digest", "passed")}
    sides = {"tag": tally.tag_s, "release": tally.release_s}
    seconds = {side: {f"p{percent}": percentile(each, percent) for percent in (50, 95)} for side, each in sides.items()}
    images = "pixels" if can_decode() else "digests"
    return {**fields, **counts, "seconds": seconds, "images": images, "examples": tally.examples}


def _tally_of(shadow: Shadow) -> Tally:
    try:
        return _decode_tally(shadow.tally) if shadow.tally else Tally()
    except msgspec.DecodeError:  # a damaged row: counting starts anew
        return Tally()


def _took_s(run: Run) -> float:
    return max(0.0, run.finished_at - run.started_at) if run.started_at else 0.0


def _subject(shadow: Shadow) -> str:
    return f"{shadow.endpoint}/{shadow.function}:{shadow.tag}"
