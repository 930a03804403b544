"""Runs discovery in a separate process. An author's module can end the process that imports it (`exit` of a C library,
a crash, `os.exec`). Here that becomes an answer with a reason; otherwise an image would be built around an empty
manifest.
"""

import contextlib
import os
import signal
import tempfile
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from gen_worker.project.cozy_toml import find_cozy_toml, load_cozy_toml
from gen_worker.project.discovery import discover
from gen_worker.project.injectable import check_injections
from gen_worker.project.pattern_warnings import pattern_warnings
from gen_worker.project.variables import secret_warnings


class Report(msgspec.Struct, frozen=True):
    """What discovery found: `manifest` as JSON, or a `problem`."""

    main: str = ""
    manifest: msgspec.Raw = msgspec.Raw(b"null")
    functions: tuple[str, ...] = ()
    stood_in: tuple[str, ...] = ()
    problem: str = ""
    slow_patterns: tuple[str, ...] = ()  # one sentence for each
    secret_variables: tuple[str, ...] = ()  # one sentence for each

    @property
    def warnings(self) -> tuple[str, ...]:
        listed = "is not installed here; its types are listed by the name they were imported under"
        return (*(f"'{package}' {listed}" for package in self.stood_in), *self.slow_patterns, *self.secret_variables)


def discover_apart(root: Path, env: Mapping[str, str]) -> Report:
    """Discover the project in `root`; declared packages that are not installed are replaced by stand-ins. Its prints go
    to stderr.

    If `env` names an author's model manager, which can load anything, no type of model is refused.
    """
    data, status = in_child(lambda: msgspec.json.encode(_report(root, env)))
    if data is not None:
        return msgspec.json.decode(data, type=Report)
    main = load_cozy_toml(find_cozy_toml(root, env) or root / "cozy.toml").main
    how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    return Report(
        main,
        problem=f"the process {how} while it imported {main!r}, so its functions are not known\n"
        "  fix: look for what ends or crashes it at import (a native library, os.exec, os.kill), and move that into the function",
    )


def in_child(work: Callable[[], bytes]) -> tuple[bytes | None, int]:
    """Run `work` in a fork of this process: its result, or None and the status of a child that ended before it had one.

    The status is negative when a signal ended the child. In the child, descriptor 1 is stderr.
    """
    if not hasattr(os, "fork"):  # Windows
        return work(), 0
    # A file, not a pipe: a process started by the author's code could keep a pipe open for ever.
    with tempfile.TemporaryFile() as answer:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # the parent handles Ctrl-C
            status = 70
            try:
                os.dup2(2, 1)
                data = work()
                answer.write(b"+" + data)
                answer.flush()
                status = 0
            except BaseException:  # noqa: BLE001 - the top of this process
                traceback.print_exc()
            finally:
                os._exit(status)
        try:
            _, waited = os.waitpid(child, 0)
        except KeyboardInterrupt:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):  # Ctrl-C ended it as well
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            raise
        answer.seek(0)
        data = answer.read()
    return (data[1:] if data[:1] == b"+" else None), os.waitstatus_to_exitcode(waited)


def _report(root: Path, env: Mapping[str, str]) -> Report:
    try:
        found = discover(root, env, with_stand_ins=True)
        for spec in () if env.get("MODEL_MANAGER_CLASS") else found.specs:
            check_injections(spec)
        manifest = msgspec.json.encode(found.manifest)
    except ValueError as exc:
        return Report(problem=str(exc) or type(exc).__name__)
    main = found.project.main
    names = tuple(spec.name for spec in found.specs)
    if not names:
        return Report(main, problem=f"no function marked with @worker_function() in {main} or what it imports")
    return Report(
        main,
        msgspec.Raw(manifest),
        names,
        found.stood_in,
        slow_patterns=tuple(pattern_warnings(found.specs)),
        secret_variables=tuple(secret_warnings(found.project.env, found.project.endpoint_name)),
    )
