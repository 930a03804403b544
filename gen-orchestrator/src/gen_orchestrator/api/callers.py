"""What a request says about its caller, for the run that it makes."""

import re

from gen_orchestrator.api.access import caller_of
from gen_orchestrator.domain.access import EVERYBODY
from gen_worker.http.asgi import Request

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def invoker_of(request: Request) -> str:
    """The invoker whose budgets a run counts against: the current caller."""
    caller = caller_of(request)
    return caller.name if caller is not EVERYBODY else ""


def traceparent_of(request: Request) -> str:
    """The caller's trace; an invalid one is ignored, as the W3C says."""
    found = request.header(b"traceparent")
    return found if found and _TRACEPARENT.fullmatch(found) else ""
