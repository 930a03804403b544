"""The table from exceptions to outcomes, and what callers may read."""

import msgspec
import pytest

from gen_worker.errors import (
    AuthError,
    CanceledError,
    DeadlineError,
    FatalError,
    MissingExtraError,
    ResourceError,
    RetryableError,
    ValidationError,
)
from gen_worker.http.problems import status_of
from gen_worker.outcome import outcome_of, scrub


class OutOfMemoryError(RuntimeError):
    pass


@pytest.mark.parametrize(
    ("raised", "error_type", "retryable", "safe", "status"),
    [
        (CanceledError("by me"), "canceled", False, "canceled", 409),
        (InterruptedError("stop"), "canceled", False, "canceled", 409),
        (ValidationError("prompt is empty"), "validation", False, "prompt is empty", 400),
        (ValidationError(), "validation", False, "invalid input", 400),
        (ValueError("bad"), "validation", False, "bad", 400),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "no"), "validation", False, "'utf-8' codec can't decode byte 0x78 in position 0: no", 400),
        (msgspec.ValidationError("Expected"), "validation", False, "Expected", 400),
        (RetryableError(), "retryable", True, "retryable error", 503),
        (ResourceError("disk"), "resource", False, "disk", 503),
        (OutOfMemoryError("CUDA"), "resource", False, "out of memory", 503),
        (FatalError(), "fatal", False, "fatal error", 500),
        (DeadlineError("timed out after 5 ms"), "fatal", False, "timed out after 5 ms", 504),
        (AuthError(), "auth", False, "authentication failed", 401),
        (KeyError("secret"), "internal", False, "internal error", 500),
        (SystemExit(3), "internal", False, "internal error", 500),
    ],
)
def test_table(raised: BaseException, error_type: str, retryable: bool, safe: str, status: int) -> None:
    found = outcome_of(raised)
    assert (found.error_type, found.retryable, found.safe_message) == (error_type, retryable, safe)
    assert found.error_message.startswith(type(raised).__name__)
    assert status_of(found.code, found.error_type) == status


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("token Bearer abc.def-ghi, rest", "token Bearer <redacted>, rest"),
        ("see https://x.example/a?sig=1 now", "see <url> now"),
        ("no file /etc/passwd here", "no file <path> here"),
        ("in '/srv/.cache/x'", "in '<path>'"),
        ("model hf:a/b and/or cozy:c/d:e", "model hf:a/b and/or cozy:c/d:e"),
        ("1/2 of it", "1/2 of it"),
        ("line\x1b[31m\rred", "line [31m red"),
        ("x" * 900, "x" * 500),
    ],
)
def test_scrubbing(text: str, safe: str) -> None:
    assert scrub(text) == safe


def test_an_exception_that_cannot_be_printed() -> None:
    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert "cannot be read" in outcome_of(BrokenError()).error_message


def test_a_missing_extra_names_the_command() -> None:
    assert "pip install 'gen-worker[torch]'" in str(MissingExtraError("torch", "torch", "this"))


def test_peak_memory_while_torch_is_being_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread is half through `import torch`: what is in sys.modules by then has no `cuda` yet."""
    import sys
    import types

    from gen_worker.execution.phases import _peak_vram_bytes

    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    assert _peak_vram_bytes() is None
