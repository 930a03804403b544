"""Failures are shown, even where Python 3.11 stumbles over showing them.

pytest parses the source of a failed test to print it. In Python 3.11 all threads share one counter of the parser's depth (CPython issue 106905):
when another thread parses at the same time (a worker's thread that formats a traceback does), `ast.parse` raises `SystemError: AST constructor
recursion depth mismatch`. pytest does not expect that and ends the whole session with INTERNALERROR; what had failed is not said. The next attempt
nearly always succeeds, because each call sets the counter anew; where none does, the report comes without the source.
"""

from collections.abc import Generator
from typing import Any

import pytest

ATTEMPTS = 20


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    try:
        return (yield)
    except SystemError:
        pass
    for _ in range(ATTEMPTS):
        try:
            return pytest.TestReport.from_item_and_call(item, call)
        except SystemError:
            continue
    error = call.excinfo
    assert error is not None  # only a failure is shown with its source
    where = f"{error.traceback[-1].path}:{error.traceback[-1].lineno + 1}"
    text = f"{where}: {error.exconly()}\n(shown without source: this Python cannot parse while another thread does)"
    return pytest.TestReport(item.nodeid, item.location, dict.fromkeys(item.keywords, 1), "failed", text, call.when, duration=call.duration)
