"""How tests wait: for a condition, with a limit, never for a time that is hoped to be enough.

Whoever can announce a change does so (an `Event`, a queue, `LoopbackScheduler.until`). These two are for what cannot: a file, a process, another
thread's counter. Both look again after a moment, and after `timeout_s` (generous, for busy machines) they say what did not come.
`tests/unit/test_rules_for_tests.py` sees that nothing else sleeps.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

LIMIT_S = 60.0
LOOK_AGAIN_S = 0.005


def until(check: Callable[[], Any], timeout_s: float = LIMIT_S, told: Callable[[], object] = lambda: "") -> Any:
    """Wait until `check` gives something true, and give it; `told` adds what is known when it does not come."""
    deadline_s = time.monotonic() + timeout_s
    while not (found := check()):
        if time.monotonic() >= deadline_s:
            raise TimeoutError(f"the expected state did not come in {timeout_s:g} s {told()}")
        time.sleep(LOOK_AGAIN_S)  # waits: for `check`
    return found


async def eventually(check: Callable[[], Any], timeout_s: float = LIMIT_S, told: Callable[[], object] = lambda: "") -> Any:
    """`until`, while the test's loop goes on."""
    deadline_s = time.monotonic() + timeout_s
    while not (found := check()):
        if time.monotonic() >= deadline_s:
            raise TimeoutError(f"the expected state did not come in {timeout_s:g} s {told()}")
        await asyncio.sleep(LOOK_AGAIN_S)  # waits: for `check`
    return found
