"""`python -m gen_worker.discover`: print the manifest of the project in the current folder."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from gen_worker.project.discovery import discover, discover_functions, discover_manifest
from gen_worker.project.validation import version_problem

__all__ = ["discover_functions", "discover_manifest", "main"]


def main(root: Path | None = None, *, check_version: bool = False) -> int:
    """Print the manifest on stdout and nothing else there; exit status 0, or 1 with the reasons on stderr.

    `check_version`: also refuse an installed gen-worker that the project's `gen_worker` excludes, as the worker would when it starts.
    """
    # The author's module may print, also from C code: its stdout is our stderr for as long as it is imported.
    manifest_fd = os.dup(1)
    os.dup2(2, 1)
    try:
        if os.environ.get("COZY_FUNCTION_MODULES"):
            print("warning: COZY_FUNCTION_MODULES is not used any more; set main in cozy.toml", file=sys.stderr)
        if check_version and (problem := version_problem(root or Path.cwd())):
            raise ValueError(problem)
        found = discover(root or Path.cwd(), with_stand_ins=True)
        manifest = found.manifest()
    except ValueError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    finally:
        sys.stdout.flush()
        os.dup2(manifest_fd, 1)
        os.close(manifest_fd)
    for package in found.stood_in:
        print(f"warning: '{package}' is not installed here; its types are listed by the name they were imported under", file=sys.stderr)
    if not found.specs:
        print(f"error: no function marked with @worker_function() in {found.project.main} or what it imports", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    return 0


def run(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m gen_worker.discover", description="Print the manifest of the endpoint in this folder.")
    parser.add_argument(
        "--check-version", action="store_true", help="also fail where the installed gen-worker is one that cozy.toml excludes"
    )
    return main(check_version=parser.parse_args(arguments).check_version)


if __name__ == "__main__":
    sys.exit(run())
