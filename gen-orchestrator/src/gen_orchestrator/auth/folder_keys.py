"""Keys stored in the data folder. Nodes that share the folder share the keys, so the next leader accepts what this one signed."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path


def folder_key(path: Path, make: Callable[[], bytes]) -> bytes:
    """The key in this file, created if it is missing and readable by its owner only. If several processes create one at
    the same time, all get the first one.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        new.touch(0o600)
        new.write_bytes(make())
        try:
            os.link(new, path)
        except FileExistsError:
            pass
        finally:
            new.unlink()
        return path.read_bytes()
