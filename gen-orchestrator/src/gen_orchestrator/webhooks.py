"""Delivers webhooks: signed (Standard Webhooks), to checked addresses, with retries, across restarts.

The store is the queue: each pending delivery has a due time, by a clock that settings of the wall clock do not move.
One task reads the queue, a few threads send the requests, and each result is written back. A host that fails five times
in a row is paused; its deliveries wait without losing a try. A request has 15 s in all, and an owner or a host never holds
all threads, so that receivers that answer slowly, or never, delay nobody else's messages.
"""

import asyncio
import base64
import hashlib
import hmac
import secrets
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any, Self
from urllib.parse import urlsplit

import httpcore
import msgspec

from gen_orchestrator import __version__
from gen_orchestrator.api.run_object import RunObjects
from gen_orchestrator.auth.folder_keys import folder_key
from gen_orchestrator.domain.runs import Run, at_start
from gen_orchestrator.domain.webhooks import (
    STARTED,
    Breaker,
    Delivery,
    Try,
    after_try,
    again,
    has_room,
    is_open,
    message_id,
    read_target,
    within_reach,
)
from gen_orchestrator.scheduling.feed import decode_entries
from gen_orchestrator.store.base import FIRST, RunStore, StoreError
from gen_orchestrator.store.ops import AddDelivery, RecordDelivery, Result
from gen_orchestrator.store.writer import Writer
from gen_worker.clock import Clock, SteadyCalendar
from gen_worker.contract.run import RunObject
from gen_worker.front_doors.cog import predictions
from gen_worker.log import Log
from gen_worker.net.deadline import DeadlineBackend
from gen_worker.net.guard import BlockedURLError, GuardedBackend, OpenBackend
from gen_worker.net.public_addresses import is_public
from gen_worker.net.public_urls import PrivateHostError, PublicURL, read_url

KEY_NAME = "webhooks.secret"
KEY_PREFIX = "whsec_"
TIMEOUT_S = 15.0  # for a whole request
AT_ONCE = 16
BATCH = 256
IDLE_S = 60.0
MAX_BREAKERS = 10_000
AGAIN_S = 5.0  # after an error of the store, or of ours
_PORTS = {"http": 80, "https": 443}


class WebhookSecret:
    """The signing key, in the form of Standard Webhooks: `whsec_` and base64."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._key = base64.b64decode(text.removeprefix(KEY_PREFIX))

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """The secret of this data folder, created if it is missing, readable by its owner only."""
        key = folder_key(folder / KEY_NAME, lambda: KEY_PREFIX.encode() + base64.b64encode(secrets.token_bytes(32)) + b"\n")
        return cls(key.decode().strip())

    def headers(self, message_id: str, at: int, body: bytes) -> dict[str, str]:
        """The three headers of Standard Webhooks 1.0 for a message."""
        signed = b"%b.%d.%b" % (message_id.encode(), at, body)
        signature = base64.b64encode(hmac.new(self._key, signed, hashlib.sha256).digest()).decode()
        return {"webhook-id": message_id, "webhook-timestamp": str(at), "webhook-signature": f"v1,{signature}"}


class Receivers:
    """Which URLs may be notified, and the connection to them. `allow_private`: also addresses of this machine and
    network, as on a laptop.
    """

    def __init__(self, *, allow_private: bool = False) -> None:
        self._allow_private = allow_private
        self.backend: httpcore.NetworkBackend = OpenBackend() if allow_private else GuardedBackend()

    def read(self, url: str) -> PublicURL:
        """The URL's parts; `BlockedURLError` says what is wrong with it. Names are resolved only when a message is sent."""
        try:
            found = read_url(url)
        except BlockedURLError:
            if not self._allow_private:
                raise
            return _private(url)
        if not self._allow_private and _is_address(found.host) and not is_public(found.host):
            raise PrivateHostError(f"the address {found.host} is not public")
        return found


class Webhooks:
    """One for each leader. Lives on the loop."""

    def __init__(
        self,
        store: RunStore,
        writer: Writer,
        secret: WebhookSecret,
        receivers: Receivers,
        objects: RunObjects,
        clock: Clock,
        calendar: SteadyCalendar,
        log: Log,
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._store = store
        self._writer = writer
        self._secret = secret
        self._receivers = receivers
        self._objects = objects
        self._clock = clock
        self._calendar = calendar
        self._log = log
        self._random = Random(secrets.randbits(64))  # noqa: S311 - spreads tries in time
        self._news = asyncio.Event()
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._timeout_s = timeout_s
        self._hosts: Counter[str] = Counter()  # of requests under way
        self._owners: Counter[str] = Counter()
        self._breakers: dict[str, Breaker] = {}
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="webhook")
        self._task: asyncio.Task[None] | None = None
        self.outcomes: Counter[str] = Counter()  # of requests, by result: `delivered`, `retried`, `failed`, `unwanted`

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep(), name="webhooks")

    async def stop(self) -> None:
        """Begin no more; requests in progress are aborted, and made again by the next leader."""
        tasks = [*self._under_way.values(), *([self._task] if self._task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def look(self) -> None:
        """The store has a new delivery."""
        self._news.set()

    async def redeliver(self, run: Run, delivery_id: str) -> Delivery | None:
        """Make a delivery of this run once more; None when there is none with that id, `ValueError` when it may not be repeated now."""
        there = await asyncio.to_thread(self._store.deliveries_of, run.id)
        found = next((each for each in there if each.id == delivery_id), None)
        if found is None:
            return None
        made = again(there, found, self._clock.unix_s(), self._calendar.unix_s())
        written: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

        def done(result: Result) -> None:
            if not written.done():
                written.set_result(result)

        self._writer.put(AddDelivery(made), done)
        await written  # refused when someone else asked at the same time: then it is the same delivery
        self.look()
        return made

    async def _keep(self) -> None:
        is_ours = False
        while True:
            self._news.clear()
            wait_s = IDLE_S
            try:
                if not is_ours:
                    await self._bring_within_reach()
                    is_ours = True
                pending = await asyncio.to_thread(self._store.pending_deliveries, BATCH)
                wait_s = self._begin(pending)
            except StoreError as exc:
                self._log.warning("webhooks.store", error=str(exc))
                wait_s = AGAIN_S
            except Exception as exc:  # noqa: BLE001 - the boundary of the task
                self._log.error("webhooks.broken", error=repr(exc))
                wait_s = AGAIN_S
            try:
                async with asyncio.timeout(wait_s):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _bring_within_reach(self) -> None:
        """Adjust what an earlier leader wrote by its own calendar, in all pages of the store: due times too far away by
        ours are moved closer.
        """
        now, after = self._calendar.unix_s(), FIRST
        while found := await asyncio.to_thread(self._store.pending_deliveries, BATCH, after):
            after = found[-1].next_at, found[-1].id
            for delivery in found:
                if (nearer := within_reach(delivery, now)) is not delivery:
                    self._writer.put(RecordDelivery(nearer), lambda _: self.look())

    def _begin(self, pending: list[Delivery]) -> float:
        """Begin what is due and has room; returns the seconds until the next look."""
        now = self._calendar.unix_s()
        for delivery in pending:
            if delivery.next_at > now:
                return min(IDLE_S, delivery.next_at - now)
            if delivery.id in self._under_way:
                continue
            if len(self._under_way) >= AT_ONCE:
                return IDLE_S  # the end of a request triggers the next look
            task = asyncio.create_task(self._try(delivery), name=f"webhook-{delivery.id}")
            self._under_way[delivery.id] = task
            task.add_done_callback(lambda _, each=delivery.id: self._over(each))  # type: ignore[misc]
        return IDLE_S

    def _over(self, delivery_id: str) -> None:
        self._under_way.pop(delivery_id, None)
        self._news.set()

    async def _try(self, delivery: Delivery) -> None:
        try:
            await self._deliver(delivery)
        except Exception as exc:  # noqa: BLE001 - the boundary of the task; it stays pending, and is not taken up again at once
            self._log.error("webhook.broken", run_id=delivery.run_id, delivery_id=delivery.id, error=repr(exc))
            await asyncio.sleep(AGAIN_S)

    async def _deliver(self, delivery: Delivery) -> None:
        run = await asyncio.to_thread(self._store.get, delivery.run_id)
        if run is None or (run.is_final and not _is_wanted(delivery, run)):
            await self._record(msgspec.structs.replace(delivery, state="unwanted"), "unwanted")
            return
        url = read_target(run.webhook).url
        now = self._calendar.unix_s()
        try:
            address = self._receivers.read(url)
        except BlockedURLError as exc:
            made = Try(self._clock.unix_s(), 0, error=_reason(exc))
            await self._record(msgspec.structs.replace(delivery, state="failed", tries=(*delivery.tries, made)), "failed")
            return
        host = address.netloc
        until = is_open(self._breakers, host, now)
        free = AT_ONCE - self._owners.total()
        if not until and not has_room(free, of_owner=self._owners[run.owner], of_host=self._hosts[host]):
            until = now + self._random.uniform(1.0, 4.0)  # others use the room meanwhile; this one is written, so not too often
        if until:
            await self._record(msgspec.structs.replace(delivery, next_at=until), "postponed")
            return
        self._hosts[host] += 1
        self._owners[run.owner] += 1
        try:
            made, blocked = await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, address, delivery, run)
        finally:
            for counted, key in ((self._hosts, host), (self._owners, run.owner)):
                counted[key] -= 1
                if not counted[key]:
                    del counted[key]
        answered = 0 < made.status < 500
        breaker = self._breakers.get(host, Breaker()).after(self._calendar.unix_s(), answered=answered)
        self._breakers.pop(host, None)
        if breaker.failures:
            self._breakers[host] = breaker
            while len(self._breakers) > MAX_BREAKERS:
                del self._breakers[next(iter(self._breakers))]
        after = after_try(delivery, made, self._random, self._calendar.unix_s())
        if blocked:
            after = msgspec.structs.replace(after, state="failed")
        outcome = "retried" if after.state == "pending" else after.state
        await self._record(after, outcome)
        write = self._log.info if after.state == "delivered" else self._log.warning
        write(f"webhook.{outcome}", run_id=run.id, delivery_id=delivery.id, status=made.status, error=made.error, tries=len(after.tries))

    async def _record(self, delivery: Delivery, outcome: str) -> None:
        self.outcomes[outcome] += 1
        written: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

        def done(result: Result) -> None:
            if not written.done():
                written.set_result(result)

        self._writer.put(RecordDelivery(delivery), done)
        await written

    def _message(self, delivery: Delivery, run: Run) -> bytes:
        """The notification about a run: the run, or the prediction if it was requested as one."""
        base = read_target(run.webhook).predictions
        if not base:
            return message(delivery, run, self._objects)
        if delivery.moment == STARTED:
            return predictions.message(msgspec.json.encode(as_started(run, self._objects, with_input=True)), (), base)
        entries = decode_entries(chunk.events for chunk in self._store.events_of(run.id))
        last = entries[-1].attempt if entries else 0
        events = [(entry.name, bytes(entry.data)) for entry in entries if entry.attempt == last]
        return predictions.message(self._objects.json(run, with_input=True), events, base)

    def _ask(self, address: PublicURL, delivery: Delivery, run: Run) -> tuple[Try, bool]:
        """One request, in a thread. True when no further try can help, because the address must not be notified."""
        at, began_s = self._clock.unix_s(), time.monotonic()
        body = self._message(delivery, run)
        headers = {
            "host": address.netloc,
            "content-type": "application/json",
            "content-length": str(len(body)),
            "user-agent": f"gen-orchestrator/{__version__}",
            **self._secret.headers(message_id(delivery.id), int(at), body),
        }
        status, error, blocked = 0, "", False
        try:
            status = self._post(address, list(headers.items()), body)
            if not 200 <= status < 300:
                error = f"the receiver answered HTTP {status}"
        except BlockedURLError as exc:
            error, blocked = _reason(exc), True
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, OSError) as exc:
            error = f"{type(exc).__name__}: {exc}"[:300]
        return Try(at, round((time.monotonic() - began_s) * 1000), status, error), blocked

    def _post(self, address: PublicURL, headers: Any, body: bytes) -> int:
        backend = DeadlineBackend(self._receivers.backend, self._timeout_s)
        url = httpcore.URL(scheme=address.scheme.encode(), host=address.host.encode(), port=address.port, target=address.target.encode())
        with (
            httpcore.ConnectionPool(network_backend=backend, max_keepalive_connections=0) as pool,
            pool.stream("POST", url, headers=headers, content=body) as response,
        ):
            return int(response.status)  # the rest of the answer is not read


def message(delivery: Delivery, run: Run, objects: RunObjects) -> bytes:
    """The body: `{"type": "run.succeeded", "timestamp": ..., "data": the run}`. The run is shown as it was at the event,
    not as it is at the delivery: `type` and `status` agree, and a message that is sent again is the same message.
    """
    is_start = delivery.moment == STARTED
    kind = f"run.{STARTED if is_start else run.state}"
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(delivery.created_at))
    data = msgspec.json.encode(as_started(run, objects)) if is_start else objects.json(run)
    return b'{"type":"%b","timestamp":"%b","data":%b}' % (kind.encode(), stamp.encode(), data)


def as_started(run: Run, objects: RunObjects, *, with_input: bool = False) -> RunObject:
    """The run as its receivers see it at its start."""
    return msgspec.structs.replace(objects.of(at_start(run), with_input=with_input), status="running")


def _is_wanted(delivery: Delivery, run: Run) -> bool:
    return delivery.moment == STARTED or read_target(run.webhook).wants(str(run.state))


def _private(url: str) -> PublicURL:
    """A URL on this machine or network, such as `http://localhost:3000/hook`."""
    try:
        site = urlsplit(url)
        port = site.port
    except ValueError:
        raise BlockedURLError("it is invalid; expected http://HOST[:PORT]/PATH") from None
    if site.scheme not in _PORTS or not site.hostname or site.username is not None or any(ord(char) <= 0x20 for char in url):
        raise BlockedURLError("expected http://HOST[:PORT]/PATH or https://HOST[:PORT]/PATH, without credentials")
    target = (site.path or "/") + (f"?{site.query}" if site.query else "")
    return PublicURL(site.scheme, site.hostname, port or _PORTS[site.scheme], target)


def _is_address(host: str) -> bool:
    return ":" in host or host.rpartition(".")[2].isdigit()


def _reason(exc: BlockedURLError) -> str:
    return str(exc).removeprefix("input url blocked: ")
