"""The life of a run from its caller's side: create, wait, cancel. Decisions only; `effects` says how they are carried
out.

    create   POST with an Idempotency-Key and `Prefer: respond-async, wait=n`: the run, often finished. Sent again it is the same run.
    wait     GET ?wait=n until it is over
    cancel   POST; while the run's id is unknown, the create is sent again to learn it
"""

from collections.abc import Iterable, Mapping
from urllib.parse import quote

from gen_worker.client.answers import State, problem_in, run_in, unexpected
from gen_worker.client.effects import Answer, Flow, Request
from gen_worker.client.errors import GatewayError, NotFoundError
from gen_worker.client.targets import Call
from gen_worker.client.tries import Patience, ask, open_stream

WAIT_S = 20  # of one request: short, so that a server that is gone is noticed soon
SLACK_S = 30.0  # added for the server's answer
CANCEL_S = 30.0


class Begun:
    """A run being created. `run_id` is empty until an answer arrives. `sent`: the server may have it even without an answer."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.run_id = ""
        self.sent = False


class Flows:
    """The flows of one client. `is_runner`: its server turned out to be a dev runner."""

    def __init__(self, headers: Mapping[str, str], patience: Patience) -> None:
        self.patience = patience
        self.is_runner = False
        self.owner: str | None = None  # None: not asked yet
        self._headers = {"accept": "application/json", **headers}

    def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        content: bytes | Iterable[bytes] = b"",
        read_timeout_s: float = SLACK_S,
    ) -> Request:
        """A request with this client's headers."""
        return Request(
            method=method, path=path, headers={**self._headers, **(headers or {})}, content=content, read_timeout_s=read_timeout_s
        )

    def create(self, begun: Begun, *, wait_s: int) -> Flow[State]:
        """Create the run, and wait this long for its end. `GatewayError` when it was not accepted."""
        prefer = f"respond-async, wait={wait_s}" if wait_s else "respond-async"
        state = run_in((yield from self.to_function(begun, {"prefer": prefer}, wait_s + SLACK_S)))
        begun.run_id = state.run.id
        return state

    def finished(self, state: State) -> Flow[State]:
        """The run at its end, whether it succeeded or not."""
        while not state.finished:
            state = yield from self.get(state.run.id, wait_s=WAIT_S)
        return state

    def get(self, run_id: str, *, wait_s: int = 0) -> Flow[State]:
        """The run's current state, or its end if that comes within `wait_s`."""
        path = run_path(run_id) + (f"?wait={wait_s}" if wait_s else "")
        request = self.request("GET", path, read_timeout_s=wait_s + SLACK_S)
        return run_in((yield from ask(request, self.patience, following=True)))

    def waited(self, run_id: str, wait_s: int | None) -> Flow[State]:
        """The run at its end, or its state after `wait_s` seconds; None: wait as long as it takes."""
        left_s = wait_s if wait_s is not None else WAIT_S
        while True:
            once_s = min(left_s, WAIT_S)
            state = yield from self.get(run_id, wait_s=once_s)
            if wait_s is not None:
                left_s -= once_s
            if state.finished or left_s <= 0:
                return state

    def cancel(self, begun: Begun) -> Flow[State | None]:
        """Cancel a run; returns its state afterwards. None when the server cannot have it, or cannot be asked for its id."""
        if not begun.run_id:
            if not begun.sent or not begun.call.key:
                return None
            yield from self.create(begun, wait_s=0)  # the same key returns the same run, and with it the id
        return (yield from self.cancel_run(begun.run_id))

    def cancel_run(self, run_id: str) -> Flow[State]:
        """Cancel a run by its id; a finished one is unchanged."""
        request = self.request("POST", f"{run_path(run_id)}/cancel", read_timeout_s=CANCEL_S)
        return run_in((yield from ask(request, self.patience)))

    def to_function(self, begun: Begun, headers: Mapping[str, str], read_timeout_s: float, *, stream: bool = False) -> Flow[Answer]:
        """POST a call to its function: at the platform's path, or at a dev runner's, whose functions have no owner."""
        call = begun.call
        keyed = {"content-type": "application/json", **headers} | ({"idempotency-key": call.key} if call.key else {})
        asked = open_stream if stream else ask
        begun.sent = True
        if call.target.owner and not self.is_runner:
            request = self.request("POST", call.target.platform_path, keyed, call.platform_body(), read_timeout_s)
            answer = yield from asked(request, self.patience, repeatable=bool(call.key))
            if not is_no_route(answer):
                return answer
        request = self.request("POST", call.target.runner_path, keyed, call.runner_body(), read_timeout_s)
        answer = yield from asked(request, self.patience, repeatable=bool(call.key))
        if is_no_route(answer):
            raise _no_function(answer, call)
        self.is_runner = True
        return answer


def run_path(run_id: str) -> str:
    return f"/v1/runs/{quote(run_id, safe='')}"


def is_no_route(answer: Answer) -> bool:
    """Whether the server does not know the path. A missing function, run or file is different: those answers have an `error`."""
    problem = problem_in(answer) if answer.status == 404 else None
    return problem is not None and problem.code == "not_found" and problem.error is None


def _no_function(answer: Answer, call: Call) -> GatewayError:
    if call.target.owner:
        return unexpected(answer, "a platform or a dev runner")
    hint = "a platform expects owner/endpoint/function[:tag]; only `cozyctl dev` accepts a bare name"
    return NotFoundError(f"this server has no function {str(call.target)!r}", code="not_found", status=404, hint=hint)
