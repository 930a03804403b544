"""Failures that are not the caller's fault: temporary ones say when to retry."""

import pytest

from gen_orchestrator.api.app import trouble_of
from gen_orchestrator.store.base import StoreFullError, StoreMovedError, StoreUnavailableError


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (MemoryError(), 503, "overloaded"),
        (StoreFullError("no room"), 507, "store_full"),
        (StoreUnavailableError("away"), 503, "store_unavailable"),
        (StoreMovedError("removed"), 503, "store_unavailable"),
        (ZeroDivisionError("secret"), 500, "internal"),
    ],
)
def test_what_may_pass_says_when_to_come_back(failure: Exception, status: int, code: str) -> None:
    body, headers = trouble_of(failure, "/v1/runs")
    assert (body.status, body.code, body.instance) == (status, code, "/v1/runs")
    assert ("retry-after" in headers) == (status != 500)
    assert "secret" not in body.detail
