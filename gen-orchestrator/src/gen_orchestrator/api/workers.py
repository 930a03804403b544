"""Workers over HTTP: list them, read their logs, drain one."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import msgspec

from gen_orchestrator.api.access import caller_of
from gen_orchestrator.auth.signing_keys import MAX_LIFE_S
from gen_orchestrator.auth.worker_tokens import AUDIENCE, ISSUER, LIFE_S, WorkerClaims, WorkerTokens, id_by_hand, release_of
from gen_orchestrator.domain.redaction import Redactor
from gen_orchestrator.scheduling.pool import Pool, Worker
from gen_worker.http.asgi import Request, RequestError
from gen_worker.names import did_you_mean, is_run_id

MAX_LOG_BYTES = 256 << 10
TAIL_BYTES = 16 << 10
MAX_WAIT_S = 60
LOOK_S = 0.25
MAX_PLACE = 1 << 53
MAX_NAMED = 20
MAX_BODY_BYTES = 4096


class NewToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a token request: its validity in seconds. The token is renewed on the stream."""

    life_s: float = LIFE_S


class FleetView(Protocol):
    """What these routes need from the fleet."""

    def drain(self, worker_id: str) -> bool:
        """Let a worker finish its runs and end; False when there is no such worker."""
        ...

    def log_from(self, worker_id: str, offset: int, most: int) -> bytes | None:
        """What a worker wrote from an offset on (negative: counted from the end); None when it has no log here. Blocking."""
        ...

    def log_begin(self, worker_id: str) -> int:
        """The offset of the first kept byte."""
        ...

    def log_end(self, worker_id: str) -> int:
        """How many bytes a worker has written."""
        ...


class WorkerRoutes:
    """Handlers of `/v1/workers`, and of tokens for workers that join. By release: `owner_of` returns the owner,
    `admits` whose workers may join, `redactor_of` removes its secrets from what workers write. `scheduler_addr`: where
    workers connect.
    """

    def __init__(
        self,
        pool: Pool,
        fleet: FleetView,
        tokens: WorkerTokens,
        owner_of: Callable[[str], str | None],
        admits: Callable[[str], str | None],
        redactor_of: Callable[[str], Redactor],
        scheduler_addr: str,
    ) -> None:
        self._owner_of = owner_of
        self._admits = admits
        self._redactor_of = redactor_of
        self._tokens = tokens
        self._scheduler_addr = scheduler_addr
        self._pool = pool
        self._fleet = fleet

    async def list(self, request: Request) -> None:
        """`GET /v1/workers`."""
        await request.answer(200, msgspec.json.encode({"data": [shown_worker(worker) for worker in self._seen(request)]}))

    async def jwks(self, request: Request) -> None:
        """`GET /.well-known/jwks.json`: the keys that verify worker tokens."""
        await request.answer(200, self._tokens.jwks)

    async def new_token(self, request: Request) -> None:
        """`POST /v1/releases/{release_id}/worker-tokens`: a token for a worker started by a person, and the address to connect to."""
        release_id = request.parts["release_id"]
        owner = self._admits(release_id)
        if owner is None or not caller_of(request).sees(owner):
            raise RequestError(404, "not_found", f"no release {release_id[:100]!r}", error="unknown_release")
        try:
            wanted = msgspec.json.decode(await request.body(MAX_BODY_BYTES) or b"{}", type=NewToken)
            if not 1 <= wanted.life_s <= MAX_LIFE_S:
                raise ValueError(f"life_s is {wanted.life_s:g}; expected 1 to {MAX_LIFE_S} seconds")
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as exc:
            raise RequestError(400, "validation", str(exc)) from None
        worker_id = id_by_hand(release_id)
        token = self._tokens.issue(WorkerClaims(worker_id, owner, release_id, life_s=wanted.life_s))
        body = {
            "worker_id": worker_id,
            "release_id": release_id,
            "owner": owner,
            "token": token,
            "issuer": ISSUER,
            "audience": AUDIENCE,
            "scheduler_addr": self._scheduler_addr,
        }
        await request.answer(201, msgspec.json.encode(body), headers={"cache-control": "no-store"})

    async def logs(self, request: Request) -> None:
        """`GET /v1/workers/{worker_id}/logs[?after=OFFSET&wait=n]`: whole lines from an offset on, and the offset after
        them.

        Without `after`, the last 16 KiB. With `wait`, the answer waits this many seconds for a line.
        """
        worker_id, query = self._known(request), request.query()
        wait_s = request.number(query.get("wait", "0"), "wait", MAX_WAIT_S)
        deadline_s = time.monotonic() + wait_s
        after = query.get("after")
        place = request.number(after, "after", MAX_PLACE) if after is not None else -1
        end = await asyncio.to_thread(self._fleet.log_end, worker_id)
        begin = await asyncio.to_thread(self._fleet.log_begin, worker_id)
        cut = after is None
        if place < 0:
            place = max(0, end - TAIL_BYTES)
        if place > end:  # the file was restarted
            place = 0
        elif place < begin:  # the requested bytes are no longer kept
            place, cut = begin, True
        elif place and not cut:  # whoever begins inside a line could begin inside a secret, which is then not found
            cut = await asyncio.to_thread(self._fleet.log_from, worker_id, place - 1, 1) not in (b"\n", None)
        while True:
            data = await asyncio.to_thread(self._fleet.log_from, worker_id, place, MAX_LOG_BYTES)
            if data is None:
                raise self._unknown(request, worker_id)
            whole = data[: data.rfind(b"\n") + 1] or (data if len(data) == MAX_LOG_BYTES else b"")
            if whole or time.monotonic() >= deadline_s:
                break
            await asyncio.sleep(LOOK_S)
        text = whole.decode(errors="replace")
        if cut and place:
            text = text.partition("\n")[2]  # the first line is incomplete
        lines = self._redactor_of(release_of(worker_id)).text(text).splitlines()
        await request.answer(200, msgspec.json.encode({"worker_id": worker_id, "lines": lines, "next": place + len(whole)}))

    async def drain(self, request: Request) -> None:
        """`POST /v1/workers/{worker_id}/drain`: give this worker no more runs; it ends after those it has."""
        worker_id = self._known(request)
        if not self._fleet.drain(worker_id):
            raise self._unknown(request, worker_id)
        worker = self._pool.get(worker_id)
        body = shown_worker(worker) if worker is not None else {"worker_id": worker_id, "state": "draining"}
        await request.answer(202, msgspec.json.encode(body))

    def _known(self, request: Request) -> str:
        worker_id = request.parts["worker_id"]
        caller, worker = caller_of(request), self._pool.get(worker_id)
        owner = worker.owner if worker is not None else self._owner_of(release_of(worker_id))
        if not is_run_id(worker_id) or not caller.sees(owner or ""):
            raise self._unknown(request, worker_id)
        return worker_id

    def _seen(self, request: Request) -> Iterator[Worker]:
        caller = caller_of(request)
        return (worker for worker in self._pool if caller.sees(worker.owner))

    def _unknown(self, request: Request, worker_id: str) -> RequestError:
        known = [worker.worker_id for worker in self._seen(request)]
        listed = ", ".join(known[:MAX_NAMED]) + (", ..." if len(known) > MAX_NAMED else "")
        detail = f"no worker {worker_id[:100]!r}.{did_you_mean(worker_id[:100], known)} Workers: {listed or 'none'}"
        return RequestError(404, "not_found", detail, error="unknown_worker")


def shown_worker(worker: Worker) -> dict[str, Any]:
    """A worker as the API shows it."""
    return {
        "worker_id": worker.worker_id,
        "release_id": worker.release_id,
        "state": worker.state,
        "runs": sorted(run_id for run_id, run in worker.runs.items() if not run.is_shadow),
        "functions": sorted(worker.functions),
        "vram_models": list(worker.resources.vram_models),
        "disk_models": list(worker.resources.disk_models),
        "gpu": worker.resources.gpu_name or None,
        "memory": {
            "gpu_bytes": worker.resources.gpu_memory_bytes,
            "gpu_used_bytes": worker.resources.gpu_memory_used_bytes,
            "host_bytes": worker.resources.memory_bytes,
            "models": [{"model": each.model_id, "tier": each.tier, "size_bytes": each.size_bytes} for each in worker.resources.model_tiers],
        },
    }
