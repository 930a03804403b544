#!/usr/bin/env python
"""Whether the tests notice changes: `make mutants` samples small changes to the modules that decide; each should fail a test.

A change turns a comparison, leaves out an argument, makes an `and` an `or`. mutmut makes them and runs the tests that reach each, in a
copy of the repository: nothing here changes. The same seed gives the same sample. Survivors are shown with their diffs. Each is a test
that is missing, a line that is not needed, or a change that changes nothing; CONTRIBUTING.md has the last result.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
MUTMUT = Path(sys.executable).with_name("mutmut")


class Side(NamedTuple):
    """One of the two distributions: its folder, the modules that decide, and the tests that run in this process and reach them."""

    folder: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]


SIDES = {
    "gen_worker": Side(
        ".",
        (
            "src/gen_worker/execution/admission.py",
            "src/gen_worker/execution/phases.py",
            "src/gen_worker/http/headers.py",
            "src/gen_worker/names.py",
            "src/gen_worker/net/intervals.py",
            "src/gen_worker/net/retry.py",
            "src/gen_worker/net/stream_count.py",
            "src/gen_worker/outcome.py",
            "src/gen_worker/refs.py",
            "src/gen_worker/residency/eviction.py",
            "src/gen_worker/residency/foresight.py",
            "src/gen_worker/residency/ledger.py",
            "src/gen_worker/residency/placement.py",
            "src/gen_worker/settings/*.py",
            "src/gen_worker/sources/file_plan.py",
            "src/gen_worker/sources/keyspace.py",
            "src/gen_worker/wire/outbox.py",
            "src/gen_worker/wire/scheduler_session.py",
            "src/gen_worker/wire/worker_session.py",
        ),
        ("tests/unit", "tests/property/test_laws.py", "tests/property/test_residency_laws.py", "tests/property/test_wire_laws.py",
         "tests/integration/test_headroom.py", "tests/integration/test_several_devices.py"),
    ),
    "gen_orchestrator": Side(
        "gen-orchestrator",
        (
            "src/gen_orchestrator/api/envelope.py",
            "src/gen_orchestrator/domain/*.py",
            "src/gen_orchestrator/scheduling/feed.py",
            "src/gen_orchestrator/store/line.py",
        ),
        ("tests/unit",),
    ),
}  # fmt: skip
# Tests that read the sources themselves, or measure what the changes' own machinery costs.
UNFIT = (
    "tests/unit/test_rules_for_tests.py",
    "tests/unit/test_pins.py",
    "tests/unit/test_published_repositories.py",
    "tests/unit/test_settings_page.py",
    "tests/unit/test_reliability_page.py",
)


def copy(side: Side, place: Path) -> Path:
    """The repository as it is here, with mutmut's settings in the side's pyproject; the folder to work in."""
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True).stdout  # noqa: S607
    for name in names.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, place / name)
    folder = place / side.folder
    if side.folder != ".":  # what its tests share with the others'
        for helper in (place / "tests").glob("*.py"):
            if not (folder / "tests" / helper.name).exists():
                shutil.copy2(helper, folder / "tests")
    return folder


def write_settings(folder: Path, side: Side, seed: int) -> None:
    others = [path.name for path in folder.iterdir() if path.name not in ("src", "tests", "mutants", "pyproject.toml")]
    ignored = [f"--ignore={path}" for path in UNFIT]
    table = {
        "source_paths": ["src"],
        "only_mutate": list(side.modules),
        "also_copy": others,
        "pytest_add_cli_args_test_selection": list(side.tests),
        "pytest_add_cli_args": [f"--hypothesis-seed={seed}", "-p", "no:warnings", *ignored],
    }
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in table.items())
    with (folder / "pyproject.toml").open("a") as file:
        file.write(f"\n[tool.mutmut]\n{lines}\n")


def mutmut(folder: Path, log: Path, *arguments: str, limit_s: float) -> int:
    with log.open("ab") as out:
        try:
            return subprocess.run([MUTMUT, *arguments], cwd=folder, stdout=out, stderr=out, check=False, timeout=limit_s).returncode
        except subprocess.TimeoutExpired:
            return 124


def verdicts(folder: Path) -> dict[str, int | None]:
    """mutmut's verdict for each change that it can make: 0 when no test failed, None when not tried."""
    found: dict[str, int | None] = {}
    for path in sorted((folder / "mutants").rglob("*.meta")):
        found |= json.loads(path.read_text())["exit_code_by_key"]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", choices=list(SIDES), action="append")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100, help="changes to try, a side")
    parser.add_argument("--limit-s", type=float, default=1200, help="seconds for one side; what was not tried until then is not counted")
    parser.add_argument("--children", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="work in this folder and leave it, to go on or to look")
    options = parser.parse_args()
    noticed_all = True
    for name in options.side or SIDES:
        side = SIDES[name]
        place = options.keep / name if options.keep else Path(tempfile.mkdtemp(prefix="mutants-"))
        try:
            began_s = time.monotonic()
            log = place / "mutmut.log"
            place.mkdir(parents=True, exist_ok=True)
            folder = copy(side, place)
            write_settings(folder, side, options.seed)
            # The first call makes all changes and learns which tests reach which; of none with this name, it tries none.
            mutmut(folder, log, "run", "--max-children", "1", "none.of.these", limit_s=options.limit_s)
            possible = sorted(verdicts(folder))
            if not possible:
                print(log.read_text()[-4000:])
                return 1
            sample = random.Random(options.seed).sample(possible, min(options.count, len(possible)))  # noqa: S311
            left_s = options.limit_s - (time.monotonic() - began_s)
            mutmut(folder, log, "run", "--max-children", str(options.children), *sample, limit_s=left_s)
            found = verdicts(folder)
            tried = {change: found[change] for change in sample if found[change] is not None}
            # 0: all tests passed. 33: no test reaches it. Anything else: a test failed, crashed or went on for ever.
            survivors = sorted(change for change, code in tried.items() if code in (0, 33))
            for change in survivors:
                shown = subprocess.run([MUTMUT, "show", change], cwd=folder, capture_output=True, text=True, check=False).stdout
                print(f"\nnot noticed{' (no test reaches it)' if tried[change] == 33 else ''}: {change}\n{shown}")
            codes = dict(Counter(tried.values()))
            noticed = len(tried) - len(survivors)
            print(
                f"\n{name}: {noticed} of {len(tried)} changes noticed ({noticed / max(1, len(tried)):.3f}); a sample of {len(sample)} from"
                f" {len(possible)} with seed {options.seed}; exit codes {codes}; {time.monotonic() - began_s:.0f} s"
            )
            noticed_all = noticed_all and noticed >= 0.95 * len(tried) > 0
        finally:
            if not options.keep:
                shutil.rmtree(place, ignore_errors=True)
    return 0 if noticed_all else 1


if __name__ == "__main__":
    sys.exit(main())
