"""What both clients take and give beside the network: options by name, outputs of the type that was asked for."""

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

    `timeout_s`: the run is ended after so many seconds. `start_timeout_s`: it expires where it has not begun by then. `priority`: `high`,
    `normal` or `low`. `webhook`, `webhook_events`: who is told of its end. A dev runner knows `timeout_s` alone, and leaves the others out.
    `idempotency_key`: the same key and call give the same run, within 24 hours. One is made where none is given; `""` sends none, and then
    a request that broke is not sent again.
    """

    timeout_s: float
    start_timeout_s: float
    priority: str
    webhook: str
    webhook_events: tuple[str, ...]
    idempotency_key: str


def call_of(ref: str, payload: Any, given: CallOptions) -> Call:
    """A call as its caller wrote it; `TypeError` or `ValueError`, before anything is sent."""
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
    """The output of a run that has succeeded, of the type asked for; `OutputTypeError`."""
    if output is None:
        return state.run.output
    try:
        return msgspec.json.decode(state.output, type=output)
    except msgspec.ValidationError as exc:
        detail = f"what run {state.run.id} gave is no {_name_of(output)}: {exc}"
        hint = "does output= name the function's own output type? run.output of this error holds what came"
        raise OutputTypeError(detail, run=state.run, hint=hint) from None


def item_of(item: msgspec.Raw, run_id: str, output: type[T] | None) -> T | Any:
    """One item of a stream, of the type asked for; `OutputTypeError`."""
    return output_of(State(Run(id=run_id, status="running", output=msgspec.json.decode(item)), bytes(item)), output)


def _name_of(kind: Any) -> str:
    return getattr(kind, "__name__", None) or str(kind)
