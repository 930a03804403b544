"""`python -m gen_worker.entrypoint`: run the worker of a built image. Exit status 0: stopped; 1: it could not start or had to end;
2: the installed gen-worker does not satisfy the project's cozy.toml."""

import os
import signal
import sys
from collections.abc import Mapping
from types import FrameType


def main(env: Mapping[str, str] = os.environ) -> int:
    """Run until stopped; the exit status."""
    # The first process of a container gets no signals that it has no handler for, so these come before the imports, which take a while.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    # gRPC's own lines on stderr would stand between our JSON lines.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from gen_worker.runtime.boot import boot

    return boot(env)


def _leave(number: int, frame: FrameType | None) -> None:
    # Not SystemExit: while an author's module is being imported, that would be taken for the module's own. Nothing is open yet.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
