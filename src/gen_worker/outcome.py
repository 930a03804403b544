"""How a run ended. Any exception, whoever raised it, becomes one row of one table.

Nothing here raises. An exception is an author's object: reading its text, its class attributes or its causes may run
any code. Only plain values of ours leave this module, and every encoder accepts them.
"""

import re
from collections.abc import Iterable, Sequence

import msgspec

from gen_worker.errors import DISK_IS_FULL, CanceledError, FieldError, ValidationError, WorkerError
from gen_worker.frames import MAX_TRACE, author_trace, place_text
from gen_worker.texts import class_name, sound, text_of

MAX_SAFE_MESSAGE = 500
MAX_ERROR_MESSAGE = 4000
MAX_FIELD_ERRORS = 100
MAX_FIELD_TEXT = 1000
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
# An absolute path can only start where a word may begin, so `hf:a/b` and `and/or` stay.
_PATH = re.compile(r"(?<![\w:.~/<-])(?:[A-Za-z]:\\[^\s\"':;,)]+|/(?:[\w.@+~-]+/)*[\w.@+~-]+/?)")


class Outcome(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The end of a run. On success only `output` is set: the encoded result, empty for a stream.

    `error_type` is the word on the wire, `code` the more specific one in problems. `error_message` is for operators,
    `safe_message` may be shown to the caller. `raised` is the name of the exception's class.
    """

    success: bool
    output: bytes = b""
    error_type: str = ""
    code: str = ""
    retryable: bool = False
    safe_message: str = ""
    error_message: str = ""
    errors: tuple[FieldError, ...] = ()
    raised: str = ""


class Failure(msgspec.Struct, frozen=True):
    """An exception in plain values. `trace` is its traceback, for the log; empty when the outcome says everything."""

    outcome: Outcome
    trace: str = ""
    out_of_memory: bool = False


class ToldError(Exception):
    """An exception of other people's code, read in the thread where it was raised, because its text may run their code,
    which may wait for ever.

    It contains only plain values, so an event loop may inspect it, log it and pass it on. `raised` is the class name of
    the original; the text is the original's.
    """

    def __init__(self, failure: Failure, text: str) -> None:
        super().__init__(text)
        self.failure = failure
        self.raised = failure.outcome.raised


class ToldWorkerError(ToldError, WorkerError):
    """A `ToldError` with a defined outcome, for example for a `ValidationError` that a model's code raises."""


def told(exc: Exception) -> Exception:
    """`exc` if it is ours with plain texts, otherwise a `ToldError` with its content. Call it where the exception was raised."""
    # By the class alone, here and below: `isinstance` would also ask the object, which may raise.
    kind = type(exc)
    ours = str(kind.__module__).partition(".")[0] == __name__.partition(".")[0]
    if ours and all(type(argument) in (str, int, float, bytes, bool, type(None)) for argument in exc.args):
        return exc
    return (ToldWorkerError if issubclass(kind, WorkerError) else ToldError)(failure_of(exc), text_of(exc))


def failure_of(exc: BaseException) -> Failure:
    """What an exception means. Call it where the exception was raised, such as in the author's thread: reading its text
    runs the author's code.
    """
    if issubclass(type(exc), ToldError):
        return exc.failure  # type: ignore[attr-defined,no-any-return]
    outcome = outcome_of(exc)
    return Failure(outcome, _trace_of(exc) if outcome.error_type == "internal" else "", _is_out_of_memory(exc))


def outcome_of(exc: BaseException) -> Outcome:
    """The outcome for an exception."""
    if issubclass(type(exc), ToldError):
        return exc.failure.outcome  # type: ignore[attr-defined,no-any-return]
    try:
        return _outcome_of(exc)
    except BaseException as broken:  # noqa: BLE001 - such as a property `code` of an author's error that raises
        detail = f"{class_name(exc)}: (it cannot be read: {class_name(broken)})"
        return Outcome(
            success=False,
            error_type="internal",
            code="internal",
            safe_message="internal error",
            error_message=detail,
            raised=class_name(exc),
        )


def _outcome_of(exc: BaseException) -> Outcome:
    text = text_of(exc)
    if isinstance(exc, (CanceledError, InterruptedError)):
        return _failed(exc, "canceled", "canceled", "canceled", text)
    if isinstance(exc, WorkerError):
        error_type = _word(exc.error_type, "internal")
        return _failed(exc, error_type, _word(exc.code, error_type), text, text, retryable=exc.retryable is True)
    if class_name(exc) in OUT_OF_MEMORY_NAMES:
        return _failed(exc, "resource", "out_of_memory", "out of memory", text)
    if isinstance(exc, OSError) and exc.errno in DISK_IS_FULL:  # whoever wrote: a download, a saved file, the author's own code
        return _failed(exc, "resource", "disk_full", "disk_full: the worker's disk has no room left", text, retryable=True)
    if isinstance(exc, ValueError):
        return _failed(exc, "validation", "validation", text, text)
    return _failed(exc, "internal", "internal", "internal error", text)


def scrub(text: str, pointers: Sequence[str] = ()) -> str:
    """Text that a caller may see: no bearer tokens, URLs, absolute paths or control characters, at most 500 characters.

    `pointers`: JSON pointers into the caller's own payload. They look like paths, but are kept.
    """

    def without_path(found: re.Match[str]) -> str:
        return found[0] if any(pointer.startswith(found[0].rstrip(".")) for pointer in pointers) else "<path>"

    text = _BEARER.sub("Bearer <redacted>", text[: 8 * MAX_SAFE_MESSAGE])
    text = _PATH.sub(without_path, _URL.sub("<url>", text))
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)[:MAX_SAFE_MESSAGE]


def _failed(exc: BaseException, error_type: str, code: str, safe: str, text: str, *, retryable: bool = False) -> Outcome:
    errors = _field_errors(exc.errors) if isinstance(exc, ValidationError) else ()
    return Outcome(
        success=False,
        error_type=error_type,
        code=code,
        retryable=retryable,
        safe_message=scrub(safe, [error.pointer for error in errors]).strip() or _EMPTY_TEXTS.get(error_type, error_type),
        error_message=f"{class_name(exc)}: {text}"[:MAX_ERROR_MESSAGE] + _place_of(exc),
        errors=errors,
        raised=class_name(exc),
    )


def _place_of(exc: BaseException) -> str:
    """Where the author's code raised an unexpected exception: ` (src/demo/main.py:12, in go: return 1 / 0)`."""
    if isinstance(exc, (WorkerError, CanceledError, InterruptedError)):
        return ""
    place = sound(place_text(exc), MAX_SAFE_MESSAGE)
    return f" ({place})" if place else ""


def _field_errors(errors: object) -> tuple[FieldError, ...]:
    """The showable part of a `ValidationError`'s `errors`, which may be anything, because the author set them."""
    found = []
    for error in list(errors)[:MAX_FIELD_ERRORS] if isinstance(errors, Iterable) else ():
        texts = [
            None if value is None else sound(value, MAX_FIELD_TEXT) if isinstance(value, str) else text_of(value, MAX_FIELD_TEXT)
            for value in (_field(error, name) for name in FieldError.__struct_fields__)
        ]
        pointer, message = texts[0] or "", texts[1] or ""
        found.append(FieldError(pointer, message, *texts[2:]))
    return tuple(found)


def _field(error: object, name: str) -> object:
    return error.get(name) if isinstance(error, dict) else getattr(error, name, None)


def _word(value: object, otherwise: str) -> str:
    return sound(value, 100) if isinstance(value, str) and value else otherwise


def _trace_of(exc: BaseException) -> str:
    return sound(author_trace(exc), MAX_TRACE)


def _is_out_of_memory(exc: BaseException) -> bool:
    # By the class alone: `isinstance` would also ask the object, which may raise.
    return issubclass(type(exc), MemoryError) or class_name(exc) in (*OUT_OF_MEMORY_NAMES, "DeviceFullError")
