"""Measures how much the saved files of two runs differ."""

from typing import Any

from gen_orchestrator.domain.runs import Run
from gen_orchestrator.gates.images import image_distance
from gen_orchestrator.hub.blobs import checked
from gen_orchestrator.hub.files import FileToken, RunFiles

MAX_BYTES = 64 << 20  # limit for an image that is read for a comparison


class FileDistances:
    """A `FileDistance` for outputs of two runs. `by_digest` counts the images whose distance is unknown. Blocking."""

    def __init__(self, files: RunFiles, first: Run, second: Run) -> None:
        self._files = files
        self._first = first
        self._second = second
        self.by_digest = 0

    def __call__(self, one: dict[str, Any], other: dict[str, Any]) -> float | None:
        if not str(one.get("mime_type", "")).startswith("image/"):
            return None
        images = self._bytes_of(self._first, str(one["ref"])), self._bytes_of(self._second, str(other["ref"]))
        found = image_distance(images[0], images[1]) if images[0] is not None and images[1] is not None else None
        self.by_digest += found is None
        return found

    def _bytes_of(self, run: Run, ref: str) -> bytes | None:
        """What a run saved under a ref, or received; None when it no longer exists, or is too large."""
        try:
            kept = self._files.find_own(FileToken(run.owner, run.id, run.attempt), ref) or self._files.find(run.owner, ref)
            if kept is None or kept.size_bytes > MAX_BYTES:
                return None
            return b"".join(checked(self._files.blobs.read(kept.blob, 0, kept.size_bytes), kept))
        except OSError:
            return None
