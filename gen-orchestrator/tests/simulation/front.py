"""The HTTP front of a simulated node, and a client that asks it as callers do.

Real: `RunRoutes`, `RunStreams`, `RunObjects`, `Waits`, `Spending`. Made up: the registry, and the connection, which ends with its node.
What a client is told is held against the laws: one run for a key, a final answer that stays as it was, events without gap or repeat.
"""

import asyncio
import concurrent.futures
import contextlib
import itertools
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import msgspec
from laws import BrokenLawError
from made_up_worker import FUNCTION
from stand_ins import OWNER, RELEASE

from gen_orchestrator.api import runs as run_routes
from gen_orchestrator.api.run_object import RunObjects
from gen_orchestrator.api.runs import RunRoutes
from gen_orchestrator.api.streams import RunStreams
from gen_orchestrator.domain.settings import FunctionSettings
from gen_orchestrator.hub.release_manifests import Resolved
from gen_orchestrator.scheduling.spending import Spending
from gen_orchestrator.scheduling.waits import Waits
from gen_orchestrator.store.base import StoreError
from gen_worker.http.asgi import Request, RequestError

if TYPE_CHECKING:
    from world import Node, World

FINAL = ("succeeded", "failed", "canceled", "expired")


class InlineThreads(concurrent.futures.ThreadPoolExecutor):
    """Does at once what is given to a thread, so that a world does the same every time."""

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **named: Any) -> "concurrent.futures.Future[Any]":
        done: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            done.set_result(work(*arguments, **named))
        except Exception as exc:  # noqa: BLE001 - as a pool of threads does
            done.set_exception(exc)
        return done


class MadeUpRegistry:
    """One function, one release."""

    def resolve(self, owner: str, endpoint: str, function: str, tag: str) -> Resolved:
        return Resolved(RELEASE, tag, SimpleNamespace(input_schema=None), FunctionSettings())  # type: ignore[arg-type]

    def routed(self, resolved: Resolved, run: object) -> Resolved:
        return resolved


def routes_of(node: "Node", clock: Any) -> RunRoutes:
    """The front of one leader's life."""
    store, objects, files = node.world.store, RunObjects(), SimpleNamespace()
    streams = RunStreams(store, files, objects)  # type: ignore[arg-type]
    waits = Waits(node.pool, clock, lambda release_id: "")
    spending = Spending(lambda invoker_id: None, store, node.dispatcher, clock)
    parts: Any = (MadeUpRegistry(), node.dispatcher, store, streams, SimpleNamespace(), waits, files, objects, spending)
    return RunRoutes(*parts)


@contextlib.contextmanager
def in_world(world: "World") -> Iterator[None]:
    """While a world lives: run ids and the time of its own."""
    ids = itertools.count()
    world.loop.set_default_executor(InlineThreads())
    clock = SimpleNamespace(time=lambda: world.loop.time() + 1_700_000_000.0)
    new_id = mock.Mock(side_effect=lambda: f"r{next(ids)}-http")
    with mock.patch.object(run_routes, "new_run_id", new_id), mock.patch.object(run_routes, "time", clock):
        yield


class ConnectionOverError(Exception):
    """The node is gone, or has nothing to say."""


class HttpClient:
    """Asks with a key until it is answered, follows the run by streams or looks, sometimes cancels it, reads its end twice."""

    def __init__(self, world: "World", number: int) -> None:
        self._world = world
        self._random = world.random
        self._number = number
        self._ends: dict[str, bytes] = {}
        self._seen: dict[tuple[int, int], bytes] = {}
        self._place = (0, 0)

    async def live(self) -> None:
        random = self._random
        key = f"key{self._number if random.random() < 0.9 else 0}"
        run_id = await self._submit(key)
        self._world.watch.answered(key, run_id)
        if random.random() < 0.25:
            await asyncio.sleep(random.choice((0.0, 0.05, 1.0, 5.0)))
            await self._cancel(run_id)
        streams = random.random() < 0.5
        while run_id not in self._ends:
            with contextlib.suppress(ConnectionOverError):
                await (self._follow(run_id) if streams else self._look(run_id))
            await asyncio.sleep(0.2 if self._world.unsettled else 2.0)
        await self._again(run_id)

    async def _submit(self, key: str) -> str:
        """The id of the run that the key has."""
        prefer = self._random.choice((b"respond-async", b"wait=1", b"wait=20"))
        while True:
            with contextlib.suppress(ConnectionOverError):
                status, body = await self._ask(
                    "invoke",
                    {"owner": OWNER, "endpoint": "e", "function": FUNCTION},
                    [(b"idempotency-key", key.encode()), (b"prefer", prefer)],
                    body=b"{}",
                )
                if "id" in body and status not in (429, 503, 507):
                    self._told(body)
                    return str(body["id"])
                if status not in (429, 503, 507):
                    raise BrokenLawError(f"a submit with {key} is answered {status} {body}")
            await asyncio.sleep(0.2)

    async def _cancel(self, run_id: str) -> None:
        while True:
            with contextlib.suppress(ConnectionOverError):
                status, body = await self._ask("cancel", {"run_id": run_id})
                if status == 200:
                    self._told(body)
                    if body["status"] not in FINAL:  # it is recorded, and the run has still to hear of it
                        self._world.watch.cancel_won(run_id)
                    return
            await asyncio.sleep(0.2)

    async def _look(self, run_id: str) -> None:
        status, body = await self._ask("get", {"run_id": run_id}, query=b"wait=5")
        if status != 200:
            raise BrokenLawError(f"L1 {run_id} was accepted, and is answered {status}")
        self._told(body)

    async def _again(self, run_id: str) -> None:
        """The end, read once more: of another leader maybe."""
        while True:
            with contextlib.suppress(ConnectionOverError):
                await self._look(run_id)
                return
            await asyncio.sleep(0.2)

    def _told(self, body: dict[str, Any]) -> None:
        """What a client was told of a run."""
        if body["status"] not in FINAL:
            if body["id"] in self._ends:
                raise BrokenLawError(f"L2 {body['id']} was over, and is {body['status']}")
            return
        shown = msgspec.json.encode({name: value for name, value in body.items() if name not in ("input", "type")}, order="deterministic")
        if self._ends.setdefault(body["id"], shown) != shown:
            raise BrokenLawError(f"L2 the end of {body['id']} changed: {self._ends[body['id']]!r}, then {shown!r}")

    async def _follow(self, run_id: str) -> None:
        """Read its stream, from where the last one was cut."""
        headers = [(b"accept", b"text/event-stream")]
        if self._place != (0, 0):
            headers.append((b"last-event-id", b"%d-%d" % self._place))
        restarted = False
        async for frame in self._frames("events", {"run_id": run_id}, headers):
            fields = dict(line.split(": ", 1) for line in frame.decode().splitlines() if ": " in line)
            data = fields.get("data", "").encode()
            if fields.get("event") == "restart":
                restarted = True
            if fields.get("event") == "done":
                self._told(msgspec.json.decode(data))
            if "id" not in fields:
                continue
            attempt, seq = (int(part) for part in fields["id"].split("-"))
            same = attempt == self._place[0]
            if seq != (self._place[1] + 1 if same else 1):
                raise BrokenLawError(f"L6 a stream of {run_id} goes from {self._place} to {(attempt, seq)}")
            if self._place[0] and not same and not restarted:
                raise BrokenLawError(f"L6 a stream of {run_id} comes to attempt {attempt} without a restart")
            self._place, restarted = (attempt, seq), False

    async def _ask(
        self, name: str, parts: dict[str, str], headers: list[tuple[bytes, bytes]] | None = None, query: bytes = b"", body: bytes = b""
    ) -> tuple[int, dict[str, Any]]:
        """A request that is answered in one piece."""
        status, pieces = 0, b""
        async for message in self._exchange(name, parts, headers or [], query, body):
            status = message.get("status", status)
            pieces += message.get("body", b"")
        return status, msgspec.json.decode(pieces) if pieces else {}

    async def _frames(self, name: str, parts: dict[str, str], headers: list[tuple[bytes, bytes]]) -> Any:
        rest = b""
        async for message in self._exchange(name, parts, headers, b"", b""):
            rest += message.get("body", b"")
            *frames, rest = rest.split(b"\n\n")
            for frame in frames:
                yield frame

    async def _exchange(self, name: str, parts: dict[str, str], headers: list[tuple[bytes, bytes]], query: bytes, body: bytes) -> Any:
        """What the node sends for a request; `ConnectionOverError` where it dies over it."""
        node = self._world.node
        if node is None:
            raise ConnectionOverError
        sent: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        bodies = [{"type": "http.request", "body": body}]

        async def receive() -> dict[str, Any]:
            if bodies:
                return bodies.pop()
            await asyncio.sleep(1e9)
            raise AssertionError

        async def send(message: Any) -> None:
            sent.put_nowait(message)

        scope = {"method": "POST", "path": "/", "path_params": parts, "headers": headers, "query_string": query}

        async def handle() -> None:
            request = Request(scope, receive, send)  # type: ignore[arg-type]
            try:
                await getattr(node.routes, name)(request)
            except StoreError as exc:  # as the application answers it
                await send({"status": 503, "body": msgspec.json.encode({"code": "store_unavailable", "detail": str(exc)})})
            except RequestError as exc:
                await send({"status": exc.status, "body": msgspec.json.encode({"code": exc.request_code, "detail": str(exc)})})

        handling = asyncio.ensure_future(handle())
        handling.add_done_callback(lambda _: sent.put_nowait(None))
        node.requests[handling] = None
        handling.add_done_callback(lambda task: node.requests.pop(task, None))
        try:
            while (message := await sent.get()) is not None:
                yield message
        finally:
            handling.cancel()
        if handling.cancelled():
            raise ConnectionOverError
        handling.result()
