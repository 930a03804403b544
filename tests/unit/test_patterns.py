"""How long an author's pattern may take for a caller's text."""

from collections.abc import Iterator

import pytest

from gen_worker.authoring.pattern_process import PatternProcess, PatternTooSlowError
from gen_worker.authoring.patterns import EXPONENTIAL, cost_of
from gen_worker.project.pattern_warnings import slow_text


@pytest.fixture(scope="module")
def process() -> Iterator[PatternProcess]:
    found = PatternProcess()
    yield found
    found.close()


@pytest.mark.parametrize(
    ("pattern", "degree"),
    [
        (r"^[a-z0-9-]+$", 1),
        (r"[a-z0-9-]+$", 2),
        (r"(?m)^[a-z]+$", 2),
        (r"^(?:red|green|blue)$", 0),
        (r"^\d{4}-\d{2}-\d{2}$", 0),
        (r"^(https?://)?x$", 0),
        (r"^[\w.]+@[\w.]+\.\w+$", 3),
        (r"^(?=.*\d).{8,}$", 2),
        (r"^(a+)+$", EXPONENTIAL),
        (r"^(ab|cd)*$", EXPONENTIAL),
        (r"^(a?){25}a{25}$", EXPONENTIAL),
        (r"^(\w)\1+$", EXPONENTIAL),
        (r"^" + r"a?" * 30 + r"$", EXPONENTIAL),
        (r"(", EXPONENTIAL),
    ],
)
def test_the_bound_of_a_pattern(pattern: str, degree: int) -> None:
    assert cost_of(pattern).degree == degree


@pytest.mark.parametrize(
    ("pattern", "is_slow"),
    [
        (r"^(a+)+$", True),
        (r"^(\w+\s?)*$", True),
        (r"^(a|a)*$", True),
        (r"(a*)*b", True),
        (r"a*a*a*a*b", True),
        (r"^(a?){25}a{25}$", True),
        (r"^([a-z]+-)*[a-z]+$", False),
        (r"^(\d{1,3}\.){3}\d{1,3}$", False),
        (r"^#(?:[0-9a-fA-F]{3}){1,2}$", False),
        (r"^(https?://)?([\w-]+\.)+[\w-]+(/\S*)?$", False),
        (r"(\w)\1+", False),
    ],
)
def test_a_warning_has_an_example(process: PatternProcess, pattern: str, is_slow: bool) -> None:
    text = slow_text(process, pattern, None)
    assert (text is not None) == is_slow
    if text is not None:
        with pytest.raises(PatternTooSlowError):
            process.first_misfit(pattern, [text])


def test_a_short_field_makes_a_pattern_harmless(process: PatternProcess) -> None:
    assert slow_text(process, r"^(a+)+$", 12) is None


def test_the_process_serves_on_after_a_pattern_that_took_too_long_and_after_its_own_death(process: PatternProcess) -> None:
    with pytest.raises(PatternTooSlowError):
        process.first_misfit(r"^(a+)+$", ["a" * 60 + "!"])
    assert process.first_misfit(r"^(a+)+$", ["a" * 60, "é\n\ud800", "a"]) == 1
    assert process.first_misfit(r"^(a+)+$", ["a" * 60]) is None
    process.kill()
    assert process.first_misfit(r"^\w+$", ["a"]) is None
