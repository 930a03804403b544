"""New folders appear whole, or not at all."""

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `target` at the end. `target` is new or an empty folder. When writing fails or
    is interrupted, `target` is as it was.

    An empty folder stays and gets the contents: it may be the shell's current one.
    """
    is_new = not target.exists()
    if is_new:
        target.parent.mkdir(parents=True, exist_ok=True)
    being_made = (target.parent if is_new else target) / f".{target.resolve().name}.{secrets.token_hex(4)}.new"
    being_made.mkdir()
    try:
        yield being_made
        if is_new:
            being_made.rename(target)
        else:
            for path in list(being_made.iterdir()):
                path.rename(target / path.name)
    finally:
        shutil.rmtree(being_made, ignore_errors=True)
