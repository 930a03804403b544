"""`python -m gen_worker.discover`: prints the manifest of the project in the current folder."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from gen_worker.contract.manifest import Manifest
from gen_worker.leaving import interrupted_once
from gen_worker.project.apart import Report, discover_apart
from gen_worker.project.discovery import discover, function_entries
from gen_worker.project.origin import foreign_problem
from gen_worker.project.validation import version_problem

__all__ = ["discover_functions", "discover_manifest", "main"]


def discover_manifest(root: str | Path | None = None) -> dict[str, Any]:
    """The manifest of the project in `root` (default: the current folder)."""
    return _as_json(discover(Path(root or Path.cwd()), os.environ, with_stand_ins=True).manifest)


def discover_functions(root: str | Path | None = None, *, main_module: str | None = None) -> list[dict[str, Any]]:
    """The function entries of the manifest. `main_module` is imported instead of cozy.toml's `main`."""
    functions: list[dict[str, Any]] = _as_json(function_entries(Path(root or Path.cwd()), os.environ, main_module))["functions"]
    return functions


def _as_json(manifest: Manifest) -> dict[str, Any]:
    return msgspec.json.decode(msgspec.json.encode(manifest), type=dict[str, Any])


def main(root: Path | None = None, *, check_version: bool = False) -> int:
    """Print the manifest, and nothing else, on stdout; exit status 0, or 1 with the reasons on stderr.

    `check_version`: also refuse an installed gen-worker that the project's `gen_worker` excludes, as the worker would
    when it starts.
    """
    found = find(root or Path.cwd(), check_version=check_version)
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if found.problem:
        print(f"error: {found.problem}", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(printed(found))
    sys.stdout.buffer.flush()
    return 0


def find(root: Path, *, check_version: bool = False) -> Report:
    """The result of discovery in `root`; its `problem` says why there is nothing to print."""
    if os.environ.get("COZY_FUNCTION_MODULES"):
        print("warning: COZY_FUNCTION_MODULES is no longer used; set main in cozy.toml", file=sys.stderr)
    try:
        problem = version_problem(root, os.environ) if check_version else foreign_problem()
        return Report(problem=problem) if problem else discover_apart(root, os.environ)
    except ValueError as exc:
        return Report(problem=str(exc))


def printed(found: Report) -> bytes:
    """The manifest as it is printed."""
    return msgspec.json.format(bytes(found.manifest), indent=2) + b"\n"


def run(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m gen_worker.discover", description="Print the manifest of the endpoint in this folder.")
    parser.add_argument(
        "--check-version", action="store_true", help="also fail where the installed gen-worker is one that cozy.toml excludes"
    )
    options = parser.parse_args(arguments)
    try:
        with interrupted_once() as interruption:
            return main(check_version=options.check_version)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return interruption.status


if __name__ == "__main__":
    sys.exit(run())
