"""Usage of runs over days: `GET /v1/usage`."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta

import msgspec

from gen_orchestrator.api.access import caller_of
from gen_orchestrator.auth.keys import INVOKER, Keys
from gen_orchestrator.domain.receipts import NANO, SUMMED, UsageRow
from gen_orchestrator.store.base import UsageStore
from gen_worker.http.asgi import Request, RequestError
from gen_worker.names import did_you_mean

MAX_DAYS = 366
EPOCH = date(1970, 1, 1)
BY = ("day", "key", "function")


class UsageRoutes:
    """`currency`: of the costs; empty when there is no price table."""

    def __init__(self, store: UsageStore, keys: Keys, currency: str, now_s: Callable[[], float]) -> None:
        self._store = store
        self._keys = keys
        self._currency = currency
        self._now_s = now_s

    async def usage(self, request: Request) -> None:
        """`GET /v1/usage[?from=&to=&by=&owner=]`: sums over the runs that ended on these days, in UTC, both days included.
        A key without the scope `admin` gets the sums of its own runs.
        """
        query = request.query()
        today = datetime.fromtimestamp(self._now_s(), UTC).date()
        last = _day(query, "to", today)
        first = _day(query, "from", last.replace(day=1))
        if not 0 <= (last - first).days < MAX_DAYS:
            raise RequestError(400, "validation", f"from={first} to={last}: expected 1 to {MAX_DAYS} days, the first one first")
        by = query.get("by", BY[0])
        if by not in BY:
            raise RequestError(400, "validation", f"by={by[:20]!r}; expected {', '.join(BY)}.{did_you_mean(by[:20], BY)}")
        caller = caller_of(request)
        begin, end = (first - EPOCH).days, (last - EPOCH).days + 1
        rows = await asyncio.to_thread(self._store.usage, begin, end, caller.own(query.get("owner", "")))
        if not (sees_all := caller.may("admin")):
            rows = [row for row in rows if row.invoker_id == caller.name]
        groups: dict[str, list[UsageRow]] = {}
        for row in rows:
            groups.setdefault(_name(row, by), []).append(row)
        body = {
            "from": str(first),
            "to": str(last),
            "by": by,
            "of": "owner" if sees_all else "key",
            "currency": self._currency or None,
            "data": [{by: name, **self._more(by, name), **_shown(found)} for name, found in sorted(groups.items())],
            "total": _shown(rows),
        }
        await request.answer(200, msgspec.json.encode(body))

    def _more(self, by: str, name: str) -> dict[str, str]:
        if by != "key":
            return {}
        key = self._keys.get(name.removeprefix(INVOKER))
        return {"name": key.name if key is not None else ""}


def _shown(rows: Iterable[UsageRow]) -> dict[str, object]:
    rows = list(rows)
    added = {name: sum(getattr(row, name) for row in rows) for name in SUMMED}
    has_cost = added["unpriced"] < added["runs"]
    return {
        "runs": added["runs"],
        "failed": added["failed"],
        "gpu_seconds": added["gpu_ms"] / 1000,
        "cpu_seconds": added["cpu_ms"] / 1000,
        "cold_seconds": added["cold_ms"] / 1000,
        "cold_share": _share(added["cold_ms"], added["total_ms"]),
        "downloaded_bytes": added["downloaded_bytes"],
        "loaded_bytes": added["loaded_bytes"],
        "cost": added["cost_nanos"] / NANO if has_cost else None,
        "unpriced": added["unpriced"],
    }


def _share(part: int, whole: int) -> float:
    return round(min(1.0, part / whole), 4) if whole else 0.0


def _name(row: UsageRow, by: str) -> str:
    match by:
        case "day":
            return str(EPOCH + timedelta(days=row.day))
        case "key":
            return row.invoker_id
        case _:
            return f"{row.owner}/{row.endpoint}/{row.function}"


def _day(query: Mapping[str, str], name: str, default: date) -> date:
    text = query.get(name)
    if text is None:
        return default
    try:
        found = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        raise RequestError(400, "validation", f"{name}={text[:20]!r}; expected a day, such as {default}") from None
    if not EPOCH <= found <= date(9000, 1, 1):
        raise RequestError(400, "validation", f"{name}={text[:20]!r}; expected a day from {EPOCH} to 9000-01-01")
    return found
