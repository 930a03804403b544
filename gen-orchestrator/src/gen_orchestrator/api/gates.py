"""Golden requests over HTTP, and the results of a release's gates."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from gen_orchestrator.api.absent import absent
from gen_orchestrator.api.access import caller_of
from gen_orchestrator.api.envelope import refused
from gen_orchestrator.api.json_bodies import JsonError, read_json
from gen_orchestrator.api.runs import RunRoutes
from gen_orchestrator.api.waiting_callers import while_waited_for
from gen_orchestrator.auth.keys import Keys
from gen_orchestrator.domain.gates import GateResult, Golden, field_errors
from gen_orchestrator.gates.goldens import GoldenError, Goldens
from gen_orchestrator.store.base import GateStore, Release
from gen_worker.errors import FieldError
from gen_worker.http.asgi import Request, RequestError

MAX_BODY_BYTES = 64 << 10
T = TypeVar("T")


class NewGolden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a new golden request: how much numbers of the output may differ, relative to the larger one."""

    tolerance: float = 0.0


class CheckGoldens(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The functions whose golden requests are run; all when none is named."""

    functions: tuple[str, ...] = ()


class GateRoutes:
    """Handlers of `/v1/goldens`, `/v1/runs/{run_id}/golden`, `/v1/releases/{release_id}/goldens` and `.../gates`.
    `release_of` finds the release in a path, or raises 404.
    """

    def __init__(
        self,
        goldens: Goldens,
        store: GateStore,
        keys: Keys,
        runs: RunRoutes,
        release_of: Callable[[Request, str], Release],
    ) -> None:
        self._goldens = goldens
        self._store = store
        self._keys = keys
        self._runs = runs
        self._release_of = release_of

    async def add(self, request: Request) -> None:
        """`POST /v1/runs/{run_id}/golden`: 201 with the golden request made from this run."""
        run, _ = await self._runs.find(request)
        wanted = await _body(request, NewGolden, '{"tolerance": 0.01}')
        try:
            golden = await self._goldens.add(run, wanted.tolerance)
        except GoldenError as exc:
            raise RequestError(409, "conflict", str(exc)) from None
        await self._note(request, golden, "golden.added")
        await request.answer(201, msgspec.json.encode(_shown(golden)))

    async def list(self, request: Request) -> None:
        """`GET /v1/goldens[?owner=&endpoint=]`: oldest first."""
        query = request.query()
        owner = caller_of(request).own(query.get("owner", ""))
        found = await asyncio.to_thread(self._store.goldens, owner, query.get("endpoint", ""))
        await request.answer(200, msgspec.json.encode({"data": [_shown(golden) for golden in found]}))

    async def remove(self, request: Request) -> None:
        """`DELETE /v1/goldens/{golden_id}`: answers with the deleted golden request."""
        golden_id = request.parts["golden_id"]
        known = {each.golden_id: each for each in await asyncio.to_thread(self._store.goldens, caller_of(request).own())}
        golden = known.get(golden_id)
        if golden is None:
            raise absent("golden request", golden_id[:60], known, "cozyctl golden list", "unknown_golden")
        await asyncio.to_thread(self._store.remove_golden, golden_id)
        await self._note(request, golden, "golden.removed")
        await request.answer(200, msgspec.json.encode(_shown(golden)))

    async def run(self, request: Request) -> None:
        """`POST /v1/releases/{release_id}/goldens`: run them against a release, and answer when all have ended."""
        release = self._release_of(request, "release_id")
        wanted = await _body(request, CheckGoldens, '{"functions": ["draw"]}')
        found = await while_waited_for(request, self._goldens.check(release.release_id, wanted.functions, again=True))
        body = {
            "release_id": release.release_id,
            "passed": all(each.passed for each in found),
            "data": [shown_result(each) for each in found],
        }
        await request.answer(200, msgspec.json.encode(body))

    async def results(self, request: Request) -> None:
        """`GET /v1/releases/{release_id}/gates`: the latest result of each gate."""
        release = self._release_of(request, "release_id")
        found = await asyncio.to_thread(self._store.results, release.release_id)
        await request.answer(200, msgspec.json.encode({"release_id": release.release_id, "data": [shown_result(each) for each in found]}))

    async def _note(self, request: Request, golden: Golden, action: str) -> None:
        subject = f"{golden.endpoint}/{golden.function} {golden.golden_id}"
        await asyncio.to_thread(self._keys.note, caller_of(request), golden.owner, action, subject, f"run {golden.run_id}")


async def pass_goldens(goldens: Goldens, release_id: str, functions: Sequence[str]) -> None:
    """Check before tags of these functions move to a release: `RequestError` 409 names the golden requests that fail."""
    failed = [each for each in await goldens.check(release_id, functions) if not each.passed]
    if failed:
        errors = field_errors(failed)
        told = "; ".join(_told(each) for each in errors[:5]) + (f"; and {len(errors) - 5} more" if len(errors) > 5 else "")
        raise RequestError(
            409,
            "golden_failed",
            f"{release_id} fails golden requests: {told}",
            hint='to move the tag anyway, send "skip_gates": true',
            cli_hint="to move the tag anyway, repeat the command with --skip-gates",
            errors=errors,
        )


def shown_result(result: GateResult) -> dict[str, Any]:
    """A result as callers see it."""
    fields = {name: getattr(result, name) for name in ("kind", "function", "subject", "passed", "at")}
    return {**fields, "detail": msgspec.Raw(result.detail)}


def _told(error: FieldError) -> str:
    values = f", expected {error.expected}, got {error.got}" if error.expected is not None else ""
    return f"{error.message}{f' at {error.pointer}' if error.pointer else ''}{values}"


def _shown(golden: Golden) -> dict[str, Any]:
    return {name: getattr(golden, name) for name in Golden.__struct_fields__ if name not in ("input", "output")}


async def _body(request: Request, kind: type[T], example: str) -> T:
    data = await request.body(MAX_BODY_BYTES)
    try:
        return msgspec.convert(read_json(data) if data else {}, kind)
    except JsonError as exc:
        raise refused(exc, "the body") from None
    except msgspec.ValidationError as exc:
        raise RequestError(400, "validation", f"{exc}; expected {example}") from None
