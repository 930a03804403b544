"""How a run ended. Any exception, whoever raised it, becomes one row of one table."""

import re

import msgspec

from gen_worker.errors import CanceledError, FieldError, ValidationError, WorkerError

MAX_SAFE_MESSAGE = 500
MAX_ERROR_MESSAGE = 4000
OUT_OF_MEMORY_NAMES = ("OutOfMemoryError", "CUDAOutOfMemoryError")

_EMPTY_TEXTS = {
    "validation": "invalid input",
    "retryable": "retryable error",
    "resource": "resource exhausted",
    "fatal": "fatal error",
    "auth": "authentication failed",
}
_BEARER = re.compile(r"(?i)\bbearer\s+[^\s,;\"']+")
_URL = re.compile(r"(?i)\bhttps?://[^\s\"'<>]+")
# An absolute path stands where a word may begin, so `hf:a/b` and `and/or` are left alone.
_PATH = re.compile(r"(?<![\w:.~/<-])(?:[A-Za-z]:\\[^\s\"':;,)]+|/(?:[\w.@+~-]+/)*[\w.@+~-]+/?)")


class Outcome(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The end of a run. On success only `output` is set: the encoded result, empty for a stream.

    `error_type` is the word on the wire, `code` the finer one in problems. `error_message` is for operators,
    `safe_message` may be shown to the caller.
    """

    success: bool
    output: bytes = b""
    error_type: str = ""
    code: str = ""
    retryable: bool = False
    safe_message: str = ""
    error_message: str = ""
    errors: tuple[FieldError, ...] = ()


def outcome_of(exc: BaseException) -> Outcome:
    """The outcome that an exception means."""
    text = _text_of(exc)
    if isinstance(exc, (CanceledError, InterruptedError)):
        return _failed(exc, "canceled", "canceled", "canceled")
    if isinstance(exc, WorkerError):
        return _failed(exc, exc.error_type, exc.code, text, retryable=exc.retryable)
    if type(exc).__name__ in OUT_OF_MEMORY_NAMES:
        return _failed(exc, "resource", "out_of_memory", "out of memory")
    if isinstance(exc, ValueError):
        return _failed(exc, "validation", "validation", text)
    return _failed(exc, "internal", "internal", "internal error")


def scrub(text: str) -> str:
    """Text that a caller may see: no bearer tokens, URLs, absolute paths or control characters, at most 500 characters."""
    text = _BEARER.sub("Bearer <redacted>", text[: 8 * MAX_SAFE_MESSAGE])
    text = _PATH.sub("<path>", _URL.sub("<url>", text))
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)[:MAX_SAFE_MESSAGE]


def _failed(exc: BaseException, error_type: str, code: str, text: str, *, retryable: bool = False) -> Outcome:
    return Outcome(
        success=False,
        error_type=error_type,
        code=code,
        retryable=retryable,
        safe_message=scrub(text).strip() or _EMPTY_TEXTS.get(error_type, error_type),
        error_message=f"{type(exc).__name__}: {_text_of(exc)}"[:MAX_ERROR_MESSAGE],
        errors=exc.errors if isinstance(exc, ValidationError) else (),
    )


def _text_of(exc: BaseException) -> str:
    try:
        return str(exc)
    except Exception as broken:  # noqa: BLE001 - an author's __str__ may itself fail
        return f"(its text cannot be read: {type(broken).__name__})"
