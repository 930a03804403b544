"""`python -m gen_worker.discover`: print the manifest of the project in the current folder."""

import os
import sys
from pathlib import Path

import msgspec

from gen_worker.project.discovery import discover, discover_functions, discover_manifest

__all__ = ["discover_functions", "discover_manifest", "main"]


def main(root: Path | None = None) -> int:
    """Print the manifest on stdout and nothing else there; exit status 0, or 1 with the reasons on stderr."""
    # The author's module may print, also from C code: its stdout is our stderr for as long as it is imported.
    manifest_fd = os.dup(1)
    os.dup2(2, 1)
    try:
        if os.environ.get("COZY_FUNCTION_MODULES"):
            print("warning: COZY_FUNCTION_MODULES is not used any more; set main in cozy.toml", file=sys.stderr)
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


if __name__ == "__main__":
    sys.exit(main())
