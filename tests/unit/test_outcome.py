"""The table from exceptions to outcomes, and what callers may read."""

import errno

import msgspec
import pytest

from gen_worker.errors import (
    AuthError,
    CanceledError,
    DeadlineError,
    DiskFullError,
    FatalError,
    FieldError,
    MissingExtraError,
    ResourceError,
    RetryableError,
    StorageError,
    ValidationError,
    WorkerError,
)
from gen_worker.http.problems import status_of
from gen_worker.outcome import (
    MAX_ERROR_MESSAGE,
    MAX_FIELD_ERRORS,
    Failure,
    Outcome,
    ToldError,
    ToldWorkerError,
    failure_of,
    outcome_of,
    scrub,
    told,
)
from gen_worker.texts import class_name


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
        (StorageError("no room"), "retryable", True, "no room", 507),
        (DiskFullError("disk_full: 2 GB more"), "resource", True, "disk_full: 2 GB more", 507),
        (
            OSError(errno.ENOSPC, "No space left on device", "/secret"),
            "resource",
            True,
            "disk_full: the worker's disk has no room left",
            507,
        ),
        (OSError(errno.EDQUOT, "Quota"), "resource", True, "disk_full: the worker's disk has no room left", 507),
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
    assert found.error_message == f"{type(raised).__name__}: {raised}", "the operator reads what the exception says"
    assert found.raised == type(raised).__name__
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


def test_an_error_of_the_authors_own_kind_without_a_text_says_its_kind() -> None:
    class OwnError(WorkerError):
        error_type = "quota"

    assert (outcome_of(OwnError("")).safe_message, outcome_of(OwnError("")).error_type) == ("quota", "quota")


class BrokenError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class OddError(WorkerError):
    """Whose attributes are what no outcome may hold."""

    error_type = None  # type: ignore[assignment]
    code = object()  # type: ignore[assignment]
    retryable = "yes"  # type: ignore[assignment]


class RaisingError(WorkerError):
    @property
    def error_type(self) -> str:  # type: ignore[override]
        raise SystemExit(1)


class ClasslessError(Exception):
    @property
    def __class__(self) -> type:  # type: ignore[override]
        raise KeyboardInterrupt


def noted(exc: BaseException) -> BaseException:
    exc.__notes__ = [BrokenError(), "\udcff", 5]  # type: ignore[list-item]
    return exc


def caused(exc: BaseException, cause: BaseException) -> BaseException:
    exc.__cause__ = cause
    return exc


@pytest.mark.parametrize(
    "raised",
    [
        BrokenError(),
        caused(RuntimeError("x"), BrokenError()),
        caused(BrokenError(), caused(ValueError("\ud800"), BrokenError())),
        ExceptionGroup("many", [BrokenError(), ValueError("\udcff")]),
        BaseExceptionGroup("many", [KeyboardInterrupt(), BaseExceptionGroup("\udcff", [BrokenError(), SystemExit(2)])]),
        noted(RuntimeError("x")),
        noted(BrokenError()),
        OddError("x"),
        RaisingError("x"),
        RuntimeError("bad \udcff name"),
        ValueError("bad \ud800 text"),
        ValueError(BrokenError()),
        RuntimeError("x" * 5_000_000),
        OSError(2, "No such file", "\udcff/x"),
        SyntaxError("m", (BrokenError(), BrokenError(), 1, "\udcff")),
        ValidationError("x", errors=(FieldError("/k", "bad \udcff"), FieldError(object(), 10**400))),  # type: ignore[arg-type]
        ValidationError("x", errors=({"pointer": "/k", "message": object()}, None, BrokenError())),  # type: ignore[arg-type]
        ValidationError("x", errors=5),  # type: ignore[arg-type]
        ValidationError("x", errors=tuple(FieldError(f"/{n}", "m" * 10_000) for n in range(1000))),
        type("OutOfMemoryError", (BrokenError,), {})(),
    ],
    ids=lambda raised: class_name(raised),
)
def test_every_exception_becomes_an_outcome_that_can_be_sent(raised: BaseException) -> None:
    """Whatever an author's exception does when it is looked at: plain values come of it, bounded, for JSON, protobuf and the log."""
    failure = failure_of(raised)
    outcome = failure.outcome
    assert not outcome.success
    assert outcome.error_type in ("internal", "validation", "resource")
    assert msgspec.json.decode(msgspec.json.encode(failure), type=Failure, strict=True) == failure
    msgspec.msgpack.encode(failure)
    for text in (outcome.error_type, outcome.code, outcome.safe_message, outcome.error_message, failure.trace):
        text.encode()
        assert type(text) is str
    assert len(outcome.error_message) <= 4000
    assert len(msgspec.json.encode(failure)) < 1_000_000
    assert outcome_of(raised) == outcome


def test_an_exception_whose_class_cannot_be_asked() -> None:
    """`isinstance` asks an object for `__class__`."""
    assert failure_of(ClasslessError("x")).outcome.error_message == "ClasslessError: (it cannot be read: KeyboardInterrupt)"


def test_field_errors_are_kept_in_whatever_form_they_were_given() -> None:
    given = [{"pointer": "/a", "message": "no", "expected": "int"}, FieldError("/b", "bad \udcff")]
    found = outcome_of(ValidationError("x", errors=given)).errors  # type: ignore[arg-type]
    assert found == (FieldError("/a", "no", "int"), FieldError("/b", "bad \\udcff"))


def test_memory_that_ran_out_is_known_by_its_class() -> None:
    assert [failure_of(exc).out_of_memory for exc in (MemoryError(), OutOfMemoryError(), BrokenError())] == [True, True, False]


def test_a_missing_extra_names_the_command() -> None:
    assert "pip install 'gen-worker[torch]'" in str(MissingExtraError("torch", "torch", "this"))


def test_peak_memory_while_torch_is_being_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread is half through `import torch`: what is in sys.modules by then has no `cuda` yet."""
    import sys
    import types

    from gen_worker.execution.phases import _peak_vram_bytes

    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    assert _peak_vram_bytes() is None


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (CanceledError("by me"), "canceled"), (InterruptedError(), "canceled"), (ValueError("bad"), "validation"),
        (OutOfMemoryError("CUDA"), "out_of_memory"), (OSError(errno.ENOSPC, "full"), "disk_full"), (KeyError("x"), "internal"),
        (OddError("x"), "internal"), (RetryableError("x"), RetryableError.code), (DeadlineError("x"), DeadlineError.code),
    ],
)  # fmt: skip
def test_codes(raised: BaseException, code: str) -> None:
    assert outcome_of(raised).code == code


def test_the_whole_of_an_outcome() -> None:
    assert outcome_of(CanceledError("by me")) == Outcome(
        success=False,
        error_type="canceled",
        code="canceled",
        safe_message="canceled",
        error_message="CanceledError: by me",
        raised="CanceledError",
    )
    assert outcome_of(RaisingError("x")) == Outcome(
        success=False,
        error_type="internal",
        code="internal",
        safe_message="internal error",
        error_message="RaisingError: (it cannot be read: SystemExit)",
        raised="RaisingError",
    )


def test_the_place_is_told_of_what_nobody_meant_to_raise() -> None:
    def fail(exc: BaseException) -> Failure:
        try:
            raise exc
        except BaseException as raised:  # noqa: BLE001
            return failure_of(raised)

    unmeant = fail(KeyError("x"))
    assert unmeant.outcome.error_message.startswith("KeyError: 'x' (")
    assert "in fail: raise exc)" in unmeant.outcome.error_message
    assert "KeyError" in unmeant.trace
    wrong = fail(ValueError("x"))
    assert "in fail: raise exc)" in wrong.outcome.error_message
    for exc in (FatalError("x"), CanceledError("x"), InterruptedError("x")):
        meant = fail(exc)
        assert meant.outcome.error_message == f"{type(exc).__name__}: x"
        assert meant.trace == ""
    assert wrong.trace == "", "the outcome says all"


def test_texts_are_cut() -> None:
    found = outcome_of(KeyError("x" * 10_000))
    assert len(found.error_message) == MAX_ERROR_MESSAGE
    many = ValidationError("x", errors=tuple(FieldError(f"/{n}", "m" * 2000) for n in range(MAX_FIELD_ERRORS + 1)))
    errors = outcome_of(many).errors
    assert len(errors) == MAX_FIELD_ERRORS
    assert len(errors[0].message) == 1000
    assert errors[-1].pointer == f"/{MAX_FIELD_ERRORS - 1}"


def test_a_pointer_into_the_callers_own_payload_is_no_path() -> None:
    error = ValidationError("/options/steps: too many; see /etc/passwd.", errors=(FieldError("/options/steps", "too many"),))
    assert outcome_of(error).safe_message == "/options/steps: too many; see <path>"
    assert scrub("at /a/b.", ["/a/b"]) == "at /a/b."
    assert scrub("at /a/b.") == "at <path>"


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("BEARER abc; x", "Bearer <redacted>; x"), ("HTTPS://X/y>", "<url>>"), ("C:\\tmp\\x, y", "<path>, y"), ("a\nb\tc", "a\nb c"),
        ("x" * 3990 + " Bearer secret", "x" * 500), ("", ""),
    ],
)  # fmt: skip
def test_more_scrubbing(text: str, safe: str) -> None:
    assert scrub(text) == safe


def test_memory_by_name() -> None:
    for name in ("OutOfMemoryError", "CUDAOutOfMemoryError", "DeviceFullError"):
        assert failure_of(type(name, (Exception,), {})()).out_of_memory
    assert outcome_of(type("CUDAOutOfMemoryError", (Exception,), {})("x")).safe_message == "out of memory"
    assert outcome_of(MemoryError("x")).error_type == "internal"
    assert outcome_of(OSError(errno.ENOENT, "x")).code == "internal"


def test_field_errors_of_other_shapes() -> None:
    given = [{"pointer": "/a"}, {"message": 5, "got": b"x"}, FieldError("/b", "m", "e", "g", "s")]
    first, second, third = outcome_of(ValidationError("x", errors=given)).errors  # type: ignore[arg-type]
    assert first == FieldError("/a", "")
    assert (second.pointer, second.message) == ("", "5")
    assert third == FieldError("/b", "m", "e", "g", "s")


class OwnTextError(RuntimeError):
    """Code of others: its text is asked for once, where it was raised."""

    asked = 0

    def __str__(self) -> str:
        OwnTextError.asked += 1
        return "its text"


class QuotaError(WorkerError):
    error_type, code, retryable = "quota", "quota_used", True


def test_what_others_raise_is_read_where_it_was_raised() -> None:
    found = told(OwnTextError(object()))
    asked = OwnTextError.asked
    assert type(found) is ToldError
    assert (str(found), found.raised, found.failure.outcome.error_type) == ("its text", "OwnTextError", "internal")
    assert failure_of(found) is found.failure
    assert outcome_of(found) is found.failure.outcome
    assert OwnTextError.asked == asked
    defined = told(QuotaError("no more"))
    assert type(defined) is ToldWorkerError
    assert (str(defined), outcome_of(defined).code, outcome_of(defined).retryable) == ("no more", "quota_used", True)
    assert type(told(ValueError("x"))) is ToldError


def test_ours_with_plain_texts_stay_as_they_are() -> None:
    plain = FatalError("x", 5)
    assert told(plain) is plain
    assert type(told(FatalError(object()))) is ToldWorkerError
