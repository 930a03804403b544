"""How far apart the files are that two runs have saved."""

from typing import Any

from gen_orchestrator.domain.runs import Run
from gen_orchestrator.gates.images import image_distance
from gen_orchestrator.hub.files import FileToken, RunFiles


class FileDistances:
    """A `FileDistance` for outputs of two runs. `by_digest` counts the images of which it could say nothing. Blocking."""

    def __init__(self, files: RunFiles, first: Run, second: Run) -> None:
        self._files = files
        self._first = first
        self._second = second
        self.by_digest = 0

    def __call__(self, one: dict[str, Any], other: dict[str, Any]) -> float | None:
        if not str(one.get("mime_type", "")).startswith("image/"):
            return None
        paths = [
            self._files.find_own(FileToken(run.owner, run.id, run.attempt), str(asset["ref"]))
            or self._files.find(run.owner, str(asset["ref"]))
            for run, asset in ((self._first, one), (self._second, other))
        ]
        found = image_distance(paths[0], paths[1]) if paths[0] is not None and paths[1] is not None else None
        self.by_digest += found is None
        return found
