"""Equal requests share one run, for functions with `memo = "10m"` in cozy.toml.

    first request                the run starts as usual
    the same, while it runs      joins that run
    the same, soon after         gets its result
    it failed, or is too old     a new run, which the next requests share

Requests are equal if owner, release, function and payload are equal; the order of keys does not matter. A memo uses
idempotency: its key is an idempotency key that no caller can send, and after a run that can no longer be reused, the
next key contains that run's id. So memos survive restarts, and of two simultaneous requests only one starts a run.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

import msgspec

from gen_orchestrator.domain.runs import Run, RunState
from gen_orchestrator.scheduling.intake import Submitted

MAX_HEADS = 10_000
MAX_TRIES = 50
_PREFIX = "\x1fmemo:"  # a header cannot carry it
Submit = Callable[[Run], Awaitable[Submitted]]


class Memo:
    """One for each leader."""

    def __init__(self) -> None:
        self._heads: OrderedDict[str, str] = OrderedDict()  # digest -> the key that was last successful

    async def submit(self, run: Run, memo_s: int, submit: Submit) -> tuple[Submitted, str]:
        """The run that answers this request, and how: `miss`, `joined`, `hit`. Raises what `submit` raises."""
        digest = _digest(run)
        key = self._heads.get(digest, f"{_PREFIX}{digest}")
        for _ in range(MAX_TRIES):
            submitted = await submit(msgspec.structs.replace(run, idempotency_key=key, fingerprint=digest))
            there = submitted.run
            self._remember(digest, key)
            if submitted.is_new:
                return submitted, "miss"
            if not there.is_final:
                return submitted, "joined"
            # negative: the clock was set back since
            if there.state is RunState.SUCCEEDED and 0 <= time.time() - there.finished_at < memo_s:
                return submitted, "hit"
            key = f"{_PREFIX}{digest}:{there.id}"
        return await submit(run), "miss"

    def _remember(self, digest: str, key: str) -> None:
        self._heads[digest] = key
        self._heads.move_to_end(digest)
        if len(self._heads) > MAX_HEADS:
            self._heads.popitem(last=False)


def _digest(run: Run) -> str:
    payload = msgspec.msgpack.encode(msgspec.msgpack.decode(run.payload), order="deterministic")
    found = hashlib.blake2b(digest_size=24)
    for part in (run.owner.encode(), run.release_id.encode(), run.function.encode(), payload):
        found.update(len(part).to_bytes(8, "big") + part)
    return found.hexdigest()
