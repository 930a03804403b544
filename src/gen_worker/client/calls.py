"""Shared by both clients, without I/O: call options, and outputs converted to the requested type."""

from typing import Any, TypedDict, TypeVar

import msgspec

from gen_worker.client.answers import State
from gen_worker.client.errors import OutputTypeError
from gen_worker.client.targets import Call, Options, make_call
from gen_worker.client.values import Run
from gen_worker.names import did_you_mean

T = TypeVar("T")


class CallOptions(TypedDict, total=False):
    """Options of a call, by name.

    `timeout_s`: the run is stopped after this many seconds. `start_timeout_s`: it expires if it has not started by
    then. `priority`: `high`, `normal` or `low`. `webhook`, `webhook_events`: the URL to notify, and of which events. A
    dev runner supports only `timeout_s` and ignores the others. `idempotency_key`: the same key and call return the
    same run within 24 hours. By default a key is generated; `""` sends none, and then a request whose connection broke
    is not retried.
    """

    timeout_s: float
    start_timeout_s: float
    priority: str
    webhook: str
    webhook_events: tuple[str, ...]
    idempotency_key: str


def call_of(ref: str, payload: Any, given: CallOptions) -> Call:
    """A call from its caller's arguments; `TypeError` or `ValueError` before anything is sent."""
    for name in given:
        if name not in CallOptions.__annotations__:
            known = ", ".join(CallOptions.__annotations__)
            raise TypeError(f"unknown option {name!r}.{did_you_mean(name, CallOptions.__annotations__)} Options: {known}")
    rest = {name: value for name, value in given.items() if name != "idempotency_key"}
    try:
        options = msgspec.convert(rest, Options)
    except msgspec.ValidationError as exc:
        raise TypeError(f"options of the call: {exc}") from None
    return make_call(ref, payload, options, given.get("idempotency_key"))


def output_of(state: State, output: type[T] | None) -> T | Any:
    """The output of a successful run in the requested type; `OutputTypeError`."""
    if output is None:
        return state.run.output
    try:
        return msgspec.json.decode(state.output, type=output)
    except msgspec.ValidationError as exc:
        detail = f"what run {state.run.id} returned is not a valid {_name_of(output)}: {exc}"
        hint = "is output= the function's own output type? run.output of this error contains the output"
        raise OutputTypeError(detail, run=state.run, hint=hint) from None


def item_of(item: msgspec.Raw, run_id: str, output: type[T] | None) -> T | Any:
    """One item of a stream in the requested type; `OutputTypeError`."""
    return output_of(State(Run(id=run_id, status="running", output=msgspec.json.decode(item)), bytes(item)), output)


def _name_of(kind: Any) -> str:
    return getattr(kind, "__name__", None) or str(kind)
