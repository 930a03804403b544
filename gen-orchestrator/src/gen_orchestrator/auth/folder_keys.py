"""Keys stored in the data folder. Nodes that share the folder share the keys, so the next leader accepts what this one signed."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path


def folder_key(path: Path, make: Callable[[], bytes]) -> bytes:
    """The key in this file, made when there is none; readable by its owner only. Of several that make one at once, all get the first."""
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
