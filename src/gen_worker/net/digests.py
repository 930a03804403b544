"""Digests as written in refs, listings and caches: `blake3:<hex>`, `sha256:<hex>`, `git-sha1:<hex>`."""

import hashlib
import re
from pathlib import Path
from typing import Any

from blake3 import blake3

_HEX_LENGTHS = {"blake3": 64, "sha256": 64, "git-sha1": 40}
_HEX = re.compile(r"[0-9a-f]+")


def checked_digest(text: str, default: str = "blake3") -> str:
    """`algorithm:hex` in lower case (`default` when only hex is given); `ValueError` for anything else. The result may
    be used as a file name.
    """
    algorithm, colon, hexadecimal = text.strip().rpartition(":")
    algorithm = (algorithm if colon else default).lower()
    hexadecimal = hexadecimal.lower()
    if not _HEX.fullmatch(hexadecimal) or _HEX_LENGTHS.get(algorithm) != len(hexadecimal):
        raise ValueError(f"digest {text[:120]!r}: expected blake3: or sha256: and 64 hexadecimal digits")
    return f"{algorithm}:{hexadecimal}"


def new_hash(digest: str, size_bytes: int) -> Any:
    """A hash object for the digest's algorithm over a file of this size. No digest: blake3."""
    algorithm = digest.partition(":")[0]
    if algorithm == "sha256":
        return hashlib.sha256()
    if algorithm == "git-sha1":  # git's name for a file's content, used by Hugging Face for small files
        return hashlib.sha1(f"blob {size_bytes}\0".encode(), usedforsecurity=False)
    return blake3()  # one thread: more would compete with the fetching threads


def digest_file(path: Path, digest: str) -> str:
    """The digest of a whole file, by the algorithm of `digest` and in its form."""
    size_bytes = path.stat().st_size
    if digest.startswith("blake3:"):
        hasher: Any = blake3(max_threads=blake3.AUTO)
        if size_bytes:
            hasher.update_mmap(path)
    else:
        hasher = new_hash(digest, size_bytes)
        with path.open("rb") as file:
            while chunk := file.read(4 << 20):
                hasher.update(chunk)
    return f"{digest.partition(':')[0]}:{hasher.hexdigest()}"
