"""Shows an author where an exception comes from: the line of the author's own code, and a traceback without our frames.

Nothing here may raise: it describes errors, and some of them break code that looks at them.
"""

import linecache
import os
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

from gen_worker.texts import class_name

MAX_TRACE = 16_000
MAX_SOURCE = 120
_OURS = str(Path(__file__).parent) + os.sep
_LIBRARIES = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def is_ours(filename: str) -> bool:
    """Whether a file belongs to gen-worker."""
    return filename.startswith(_OURS)


def is_library(filename: str) -> bool:
    """Whether a file belongs to Python or to an installed package, so the project's author did not write it."""
    return filename.startswith("<") or filename.startswith(_LIBRARIES) or f"{os.sep}site-packages{os.sep}" in filename


def shown_path(filename: str) -> str:
    """A file's path; relative if it is in the current folder."""
    try:
        here = os.path.join(os.getcwd(), "")  # noqa: PTH109, PTH118 - a vanished folder must not raise here
    except OSError:
        return filename
    return filename.removeprefix(here)


def author_place(exc: BaseException) -> tuple[str, int, str] | None:
    """File, line and function of the author's last frame, otherwise of a library's; None when all frames are ours."""
    found: tuple[str, int, str] | None = None
    written = False  # whether `found` is the author's own
    for frame, line in traceback.walk_tb(exc.__traceback__):
        code = frame.f_code
        mine = not is_library(code.co_filename)
        if not is_ours(code.co_filename) and not code.co_filename.startswith("<frozen") and mine >= written:
            found, written = (code.co_filename, line, code.co_name), mine
    return found


def source_line(filename: str, line: int) -> str:
    """The line of source code without its indentation; `""` when it cannot be read."""
    try:
        text = linecache.getline(filename, line).strip()
    except Exception:  # noqa: BLE001 - a file that is no Python text
        return ""
    return text if len(text) <= MAX_SOURCE else text[: MAX_SOURCE - 3] + "..."


def place_text(exc: BaseException) -> str:
    """`src/demo/main.py:12, in go: return 1 / 0`, or `""` when no line of the author's is known."""
    try:
        place = author_place(exc)
    except BaseException:  # noqa: BLE001 - an exception's class may make anything of `__traceback__`
        return ""
    if place is None:
        return ""
    filename, line, function = place
    source = source_line(filename, line)
    return f"{shown_path(filename)}:{line}, in {function}{': ' + source if source else ''}"


def author_trace(exc: BaseException) -> str:
    """The traceback, with causes and notes, without the frames of gen-worker, unless there are no others."""
    try:
        whole = author_place(exc) is None
        shown = traceback.TracebackException.from_exception(exc, compact=True)
        if not whole:
            for each in _with_causes(shown):
                each.stack = traceback.StackSummary.from_list([frame for frame in each.stack if not is_ours(frame.filename)])
        text = "".join(shown.format()).rstrip("\n")
    except BaseException as broken:  # noqa: BLE001 - a note, a cause or a member of a group may be anything, and raise anything
        places = "".join(traceback.format_tb(exc.__traceback__, limit=-8))
        text = f"{places}{class_name(exc)} (the rest of its traceback cannot be shown: {class_name(broken)})"
    return text if len(text) <= MAX_TRACE else f"{text[:2000]}\n  ...\n{text[-MAX_TRACE + 2000 :]}"


def _with_causes(exc: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    pending, seen = [exc], set[int]()
    while pending:
        each = pending.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        pending += [other for other in (each.__cause__, each.__context__, *(each.exceptions or ())) if other is not None]
