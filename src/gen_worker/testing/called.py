"""Fake functions for tests of `ctx.invoke`, with a context built by hand.

called = Called(embed=lambda payload: {"vector": [1.0, 2.0]})
ctx = ActionContext("run-1", children=called)
assert search(ctx, Query("kite")) == ...
assert called.calls == [("embed", {"text": "kite"})]
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from gen_worker.authoring.invoking import ChildCall, ChildEnd, Children, Inbox
from gen_worker.outcome import Outcome, outcome_of


class Called(Children):
    """`functions`: by their names, or as the called ref spells them. Each takes the payload as a dict and returns its
    output, or an iterator of its items, or raises. `calls`: what was called, in order: ref and payload.
    """

    def __init__(self, **functions: Callable[[dict[str, Any]], Any]) -> None:
        self._functions = functions
        self._lock = threading.Lock()
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def start(self, call: ChildCall, inbox: Inbox) -> Callable[[], None]:
        payload = msgspec.json.decode(call.payload)
        with self._lock:
            self.calls.append((call.ref, payload))
        try:
            inbox.put(ChildEnd(self._run(call.ref, payload, inbox)))
        except Exception as exc:  # noqa: BLE001 - what a function raises is its outcome
            inbox.put(ChildEnd(outcome_of(exc)))
        return lambda: None

    def close(self) -> None:
        """All have already ended."""

    def _run(self, ref: str, payload: dict[str, Any], inbox: Inbox) -> Outcome:
        name = ref.partition("@")[0].partition(":")[0].rpartition("/")[2].replace("-", "_")
        if name not in self._functions:
            raise LookupError(f"the test called {ref!r}; Called(...) has {', '.join(self._functions) or 'nothing'}")
        found = self._functions[name](payload)
        if isinstance(found, Iterator):
            for item in found:
                inbox.put(msgspec.json.encode(item))
            return Outcome(success=True)
        return Outcome(success=True, output=msgspec.json.encode(found))
