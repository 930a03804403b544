"""`python -m gen_worker.entrypoint`: runs the worker of a built image. Exit status 0: stopped; 1: it could not start or
had to end; 2: the installed gen-worker does not satisfy the project's cozy.toml.

With arguments it becomes that command, so `docker run IMAGE python -m gen_worker.testing.http_runner` works as
expected.
"""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from types import FrameType


def main(arguments: Sequence[str] = (), env: Mapping[str, str] = os.environ) -> int:
    """Run until stopped; the exit status."""
    if arguments:
        return _become(arguments)
    # The first process of a container ignores signals without a handler, so handlers are set before the imports, which take a while.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN or number is not signal.SIGHUP:  # keep ignoring it if nohup does
            signal.signal(number, _leave)
    # gRPC's own lines on stderr would get between our JSON lines.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from gen_worker.runtime.boot import boot

    return boot(env)


def _become(command: Sequence[str]) -> int:
    try:
        os.execvp(command[0], list(command))  # noqa: S606 - the command that whoever runs the image gave
    except OSError as exc:
        print(f"error: cannot run {command[0]!r}: {exc.strerror}. Without a command the worker starts", file=sys.stderr)
        return 127


def _leave(number: int, frame: FrameType | None) -> None:
    # Not SystemExit: while an author's module is being imported, that would look like the module's own exit. Nothing is open yet.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
