"""The checks a release must pass before a tag moves to it, and their results. Pure.

A golden request is the input of a run with the right output, and the output that each later release must give for it.
"""

from typing import Any, Literal

import msgspec

from gen_orchestrator.domain.comparison import Difference, FileDistance, clipped, differences
from gen_orchestrator.domain.runs import Run, RunState
from gen_worker.errors import FieldError

GateKind = Literal["golden", "canary", "shadow"]
MAX_SHOWN = 20  # differences kept in a result


class Golden(msgspec.Struct, frozen=True, kw_only=True):
    """`input` is the run's payload in msgpack, `output` its output as JSON; for a stream the array of its items.
    `run_id` is kept as long as the golden request, with its files. `tolerance`: how much numbers may differ, relative
    to the larger one.
    """

    golden_id: str
    owner: str
    endpoint: str
    function: str
    run_id: str
    input: bytes
    output: bytes
    tolerance: float
    created_at: float


class GateResult(msgspec.Struct, frozen=True, kw_only=True):
    """The latest result of one gate for a function of a release. `subject` is the golden request's id, or the tag of a
    canary or of shadow runs. `detail` is JSON: a `GoldenDetail` for a golden request.
    """

    release_id: str
    function: str
    kind: GateKind
    subject: str
    owner: str
    passed: bool
    detail: bytes
    at: float


class GoldenDetail(msgspec.Struct, frozen=True):
    """The compared run, and what was wrong: that it did not succeed, or where its output differs."""

    run_id: str = ""
    error: str = ""
    differences: tuple[Difference, ...] = ()


def judged(
    golden: Golden, release_id: str, run: Run | None, output: Any, error: str, at: float, file_distance: FileDistance | None = None
) -> GateResult:
    """The result of a golden request for a release. `run` is the run made for it, `output` its output as JSON values.
    `error` says why there is no run, or none that has ended.
    """
    if not error and run is not None and run.state is not RunState.SUCCEEDED:
        error = f"the run is {run.state}" + (f": {run.error.message} ({run.error.code})" if run.error is not None else "")
    apart = [] if error else differences(msgspec.json.decode(golden.output), output, golden.tolerance, file_distance)
    detail = GoldenDetail(run.id if run is not None else "", error, tuple(clipped(each) for each in apart[:MAX_SHOWN]))
    return GateResult(
        release_id=release_id,
        function=golden.function,
        kind="golden",
        subject=golden.golden_id,
        owner=golden.owner,
        passed=not error and not apart,
        detail=msgspec.json.encode(detail),
        at=at,
    )


def field_errors(failed: list[GateResult]) -> list[FieldError]:
    """Why golden requests failed, each as a place in the output."""
    found = []
    for result in failed:
        detail = msgspec.json.decode(result.detail, type=GoldenDetail)
        name = f"{result.function}, golden {result.subject}"
        if detail.error:
            found.append(FieldError("", f"{name}: {detail.error}"))
        for each in detail.differences:
            found.append(FieldError(each.pointer, f"{name}: the output differs", expected=_shown(each.expected), got=_shown(each.actual)))
    return found


def _shown(value: Any) -> str:
    return msgspec.json.encode(value).decode()[:100]
