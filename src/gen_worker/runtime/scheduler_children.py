"""Functions called by a run (`ctx.invoke`), as runs of the scheduler that sent the calling run. See
`contract.children`.

    start --thread--> POST .../children --events as NDJSON--> items, the end
                        |        ^ cut, or temporary trouble: again, with the number of the last event
                        +--> a server that runs no children: in this process, if the function is of this project

When a run is over, the scheduler cancels the runs that it called. A single call that is no longer wanted is cancelled
from here.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import httpcore
import msgspec

from gen_worker.authoring.invoking import ChildCall, ChildEnd, Children, Inbox
from gen_worker.contract.children import CANCEL_ROUTE, CHILDREN_HEADER, CHILDREN_ROUTE, RUN_ID_HEADER, ChildRequest
from gen_worker.errors import CanceledError, FieldError, RetryableError
from gen_worker.net import retry
from gen_worker.outcome import Outcome, outcome_of

CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0  # a heartbeat comes every 15 s
PATIENCE_S = 60.0  # of trouble without a break
PAUSE_S = 0.5
AT_ONCE = 64  # connections of one run
MAX_ANSWER_BYTES = 1 << 20
NETWORK = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError)
PASSING = retry.PASSING | {507}  # 507: the platform's store is full


class _Problem(msgspec.Struct, frozen=True):
    """The part of a problem that is read here."""

    detail: str = ""
    code: str = "internal"
    retryable: bool = False
    errors: tuple[FieldError, ...] | None = None


class _Run(msgspec.Struct, frozen=True):
    """The part that is read of the run at the end of a stream."""

    status: str = ""
    output: msgspec.Raw = msgspec.Raw(b"null")
    error: _Problem | None = None


class _Line(msgspec.Struct, frozen=True):
    """One line of a stream."""

    event: str
    data: msgspec.Raw
    id: str = ""


_read_line = msgspec.json.Decoder(_Line).decode
_read_run = msgspec.json.Decoder(_Run).decode
_read_problem = msgspec.json.Decoder(_Problem).decode
_TYPES = {
    **{code: code for code in ("validation", "retryable", "resource", "canceled", "fatal", "auth", "internal")},
    "disk_full": "resource",
    "out_of_memory": "resource",
    "not_found": "validation",
    "overloaded": "retryable",
    "storage": "retryable",
    "budget_exhausted": "retryable",
}


class Askable:
    """The servers that may be asked to run children: all but those known to run none. One for each worker; any thread."""

    def __init__(self) -> None:
        self._without: set[str] = set()

    def __contains__(self, base_url: str) -> bool:
        return base_url not in self._without

    def note(self, base_url: str) -> None:
        """This server runs no children."""
        self._without.add(base_url)


class SchedulerChildren(Children):
    """For one run. `here` runs functions in this process, for a server that runs no children. `stays` tells which calls
    are always made here.
    """

    def __init__(
        self, base_url: str, token: str, run_id: str, here: Children, askable: Askable, stays: Callable[[str], bool] = lambda ref: False
    ) -> None:
        self._base = base_url.rstrip("/")
        self._token = token
        self._run_id = run_id
        self._here = here
        self._askable = askable
        self._stays = stays
        self._turn = threading.Semaphore(AT_ONCE)
        self._open: dict[int, _Call] = {}
        self._is_closed = False

    def start(self, call: ChildCall, inbox: Inbox) -> Callable[[], None]:
        if self._base not in self._askable or self._stays(call.ref):
            return self._here.start(call, inbox)
        asked = self._open[call.number] = _Call(call, inbox)
        if self._is_closed:
            self.close()
        threading.Thread(target=self._follow, args=(asked,), name=f"call {call.ref} of {self._run_id}", daemon=True).start()
        return lambda: self._stop(asked)

    def close(self) -> None:
        self._is_closed = True
        for asked in list(self._open.values()):
            asked.is_unwanted = True
            asked.end(outcome_of(CanceledError("canceled")))
        self._here.close()

    def _stop(self, asked: "_Call") -> None:
        """The call is no longer wanted: cancel it if it is still running."""
        if asked.is_over:
            return
        asked.is_unwanted = True
        if asked.stop_here is not None:
            asked.stop_here()
        elif asked.run_id and not self._is_closed:
            threading.Thread(target=self._cancel, args=(asked.run_id,), daemon=True).start()

    def _follow(self, asked: "_Call") -> None:
        try:
            with self._turn:
                self._ask_until_the_end(asked)
        except BaseException as exc:  # noqa: BLE001 - whatever it is, the caller waits for an end
            asked.end(outcome_of(exc))
        finally:
            self._open.pop(asked.call.number, None)

    def _ask_until_the_end(self, asked: "_Call") -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not asked.is_unwanted:
            before = asked.cursor
            try:
                if self._ask(asked):
                    return
                why = "its stream was cut"
            except NETWORK as exc:
                why = str(exc) or type(exc).__name__
            except _PassingError as exc:
                why = str(exc)
            if asked.cursor != before:
                deadline_s = time.monotonic() + PATIENCE_S
            elif time.monotonic() > deadline_s:
                raise RetryableError(f"ctx.invoke({asked.call.ref[:100]!r}) failed for {PATIENCE_S:.0f} s: {why}")
            time.sleep(PAUSE_S)
        raise CanceledError("canceled")

    def _ask(self, asked: "_Call") -> bool:
        """One try; whether the call has ended."""
        call = asked.call
        path = CHILDREN_ROUTE.format(run_id=self._run_id)
        body = msgspec.json.encode(ChildRequest(call.ref, call.number, msgspec.Raw(call.payload), call.timeout_ms))
        with self._request(path, body, [("last-event-id", asked.cursor)] if asked.cursor else []) as (status, fields, response):
            if status == 200 and CHILDREN_HEADER in fields:
                asked.run_id = fields.get(RUN_ID_HEADER, "")
                if asked.is_unwanted:
                    self._cancel(asked.run_id)
                return any(asked.heard(_read_line(line)) for line in _lines(response))
            if status in PASSING:
                raise _PassingError(f"the scheduler answered {status}")
            if CHILDREN_HEADER not in fields:
                self._askable.note(self._base)
                asked.stop_here = self._here.start(call, asked.inbox)
                return True
            data = _read(response)
        try:
            problem = _read_problem(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            problem = _Problem(f"the scheduler answered {status}")
        asked.end(_outcome(problem))
        return True

    def _cancel(self, child_id: str) -> None:
        with contextlib.suppress(*NETWORK), self._request(CANCEL_ROUTE.format(run_id=self._run_id, child_id=child_id), b"{}", []):
            pass  # if the cancel did not arrive, the child ends with its parent run

    @contextlib.contextmanager
    def _request(self, path: str, body: bytes, more: list[tuple[str, str]]) -> Iterator[tuple[int, dict[str, str], httpcore.Response]]:
        headers = [
            ("authorization", f"Bearer {self._token}"),
            ("user-agent", "gen-worker"),
            ("content-type", "application/json"),
            ("accept", "application/x-ndjson"),
            *more,
        ]
        timeouts = {"connect": CONNECT_TIMEOUT_S, "read": READ_TIMEOUT_S, "write": READ_TIMEOUT_S, "pool": CONNECT_TIMEOUT_S}
        with (
            httpcore.ConnectionPool(max_keepalive_connections=0) as pool,
            pool.stream("POST", f"{self._base}{path}", headers=headers, content=body, extensions={"timeout": timeouts}) as response,
        ):
            fields = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
            yield response.status, fields, response


class _PassingError(Exception):
    """A later try may succeed."""


class _Call:
    """One running call. Written by its thread only, except for `is_unwanted`."""

    def __init__(self, call: ChildCall, inbox: Inbox) -> None:
        self.call = call
        self.inbox = inbox
        self.run_id = ""
        self.cursor = ""
        self.is_unwanted = False
        self.is_over = False
        self.stop_here: Callable[[], None] | None = None
        self._items = 0

    def end(self, outcome: Outcome) -> None:
        """Report how it ended, once."""
        self.is_over = True  # set first: the listener must not cancel a call that is over
        self.inbox.put(ChildEnd(outcome))

    def heard(self, line: _Line) -> bool:
        """Process a line; whether it is the last one."""
        if line.event == "output":
            self._wait_for_room()
            self.inbox.put(bytes(line.data))
            self._items += 1
        elif line.event in ("restart", "snapshot") and self._items:
            raise RetryableError(f"the function {self.call.ref[:100]!r} was restarted after some of its items had arrived")
        elif line.event == "done":
            run = _read_run(line.data)
            if run.status == "succeeded":
                output = bytes(run.output)
                self.end(Outcome(success=True, output=b"" if output == b"null" else output))
            else:
                self.end(_outcome(run.error or _Problem(f"the run is {run.status}", "canceled")))
            return True
        if line.id:
            self.cursor = line.id
        return False

    def _wait_for_room(self) -> None:
        if not self.inbox.ready:
            room = threading.Event()
            self.inbox.on_ready(room.set)
            while not (room.wait(1.0) or self.is_unwanted):
                pass


def _outcome(problem: _Problem) -> Outcome:
    """The outcome that a problem describes."""
    error_type = _TYPES.get(problem.code, "retryable" if problem.retryable else "fatal")
    return Outcome(
        success=False,
        error_type=error_type,
        code=problem.code,
        retryable=problem.retryable or error_type == "retryable",
        safe_message=problem.detail,
        error_message=problem.detail,
        errors=problem.errors or (),
    )


def _lines(response: httpcore.Response) -> Iterator[bytes]:
    rest = b""
    for chunk in response.iter_stream():
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line for line in lines if line.strip())


def _read(response: httpcore.Response) -> bytes:
    data = b""
    for chunk in response.iter_stream():
        data += chunk
        if len(data) > MAX_ANSWER_BYTES:
            break
    return data
