"""Golden requests: what is reported about a run that was made from one."""

import msgspec
import pytest

from gen_orchestrator.domain.gates import MAX_SHOWN, Golden, GoldenDetail, field_errors, judged
from gen_orchestrator.domain.runs import Run, RunError, RunState
from gen_worker.errors import FieldError

GOLDEN = Golden(
    golden_id="g1", owner="ann", endpoint="e", function="f", run_id="r0", input=b"\x80", output=b'{"score":1.0,"text":"a"}', tolerance=0.1,
    created_at=1.0,
)  # fmt: skip
RUN = Run(
    id="r1",
    owner="ann",
    endpoint="e",
    function="f",
    tag="@rel",
    release_id="rel",
    payload=b"\x80",
    created_at=1.0,
    state=RunState.SUCCEEDED,
)


@pytest.mark.parametrize(
    ("output", "passed", "pointers"),
    [
        ({"score": 1.0, "text": "a"}, True, []),
        ({"score": 1.09, "text": "a"}, True, []),
        ({"score": 1.2, "text": "a"}, False, ["/score"]),
        ({"score": 1.0, "text": "b"}, False, ["/text"]),
        ({"score": 1.0}, False, ["/text"]),
        ([], False, [""]),
        (None, False, [""]),
    ],
)
def test_outputs_are_compared(output: object, passed: bool, pointers: list[str]) -> None:
    result = judged(GOLDEN, "rel", RUN, output, "", 2.0)
    assert (result.passed, [each.pointer for each in field_errors([] if passed else [result])]) == (passed, pointers)
    assert (result.kind, result.subject, result.release_id, result.function, result.owner) == ("golden", "g1", "rel", "f", "ann")


def test_a_run_that_failed_passes_nothing() -> None:
    failed = msgspec.structs.replace(RUN, state=RunState.FAILED, error=RunError(error_type="fatal", code="boom", message="it broke"))
    for run, error, told in (
        (failed, "", "the run is failed: it broke (boom)"),
        (None, "it was not run", "it was not run"),
        (RUN, "late", "late"),
    ):
        result = judged(GOLDEN, "rel", run, {"score": 1.0, "text": "a"}, error, 2.0)
        detail = msgspec.json.decode(result.detail, type=GoldenDetail)
        assert (result.passed, detail.error, detail.run_id) == (False, told, run.id if run is not None else "")
        assert field_errors([result])[0].message == f"f, golden g1: {told}"


def test_a_result_keeps_a_bounded_number_of_differences() -> None:
    many = msgspec.structs.replace(GOLDEN, output=msgspec.json.encode(list(range(1, 500))))
    result = judged(many, "rel", RUN, [0] * 499, "", 2.0)
    assert len(field_errors([result])) == MAX_SHOWN


def test_a_difference_is_told_with_both_values() -> None:
    (told,) = field_errors([judged(GOLDEN, "rel", RUN, {"score": 1.0, "text": "b"}, "", 2.0)])
    assert told == FieldError("/text", "f, golden g1: the output differs", expected='"a"', got='"b"')
