"""docs/reliability.md names tests that exist, and has the correct number of planted bugs."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/reliability.md").read_text()


def test_each_named_test_is_there() -> None:
    files = {path.stem for folder in ("tests", "gen-orchestrator/tests") for path in (ROOT / folder).rglob("test_*.py")}
    assert set(re.findall(r"\btest_\w+", PAGE)) - files == set()


def test_each_row_names_its_test() -> None:
    for section in ("## Faults", "## Bad input"):
        rows = PAGE.partition(section)[2].partition("\n## ")[0].splitlines()
        without = [
            row for row in rows[4:] if row.startswith("|") and not re.search(r"test_\w+|simulation|contract suite", row.split("|")[-2])
        ]
        assert not without, without


def test_the_planted_bugs_are_counted() -> None:
    sys.path.insert(0, str(ROOT / "gen-orchestrator/tests/simulation"))
    try:
        from planted import PLANTED
    finally:
        sys.path.pop(0)
    assert f"{len(PLANTED)} deliberate bugs" in PAGE
