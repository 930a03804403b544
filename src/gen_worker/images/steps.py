"""Parses the output of an image build, line by line, into steps. Pure."""

import re
from collections import deque

import msgspec

TAIL_LINES = 30
# Docker's classic builder, podman and buildah; then BuildKit with --progress=plain.
_STEP = re.compile(r"(?:STEP|Step) (\d+)/(\d+) ?: (.*)")
_BUILDKIT_STEP = re.compile(r"#(\d+) \[(?:[\w.-]+ +)?(\d+)/(\d+)\] (.*)")
_BUILDKIT_LINE = re.compile(r"#(\d+) (?:\d+\.\d+ )?(.*)")
_CACHED = re.compile(r"(?:-->|--->) Using cache|CACHED")
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class Step(msgspec.Struct):
    """A Dockerfile instruction that is being executed. `number` counts from 1."""

    number: int
    count: int
    instruction: str
    cached: bool = False


class BuildLog:
    """Takes a build's lines; knows the current step, and the end of its output."""

    def __init__(self) -> None:
        self.step: Step | None = None
        self.last_line = ""
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._vertex: dict[str, Step] = {}

    def feed(self, line: str) -> Step | None:
        """The step that this line starts or updates, if any."""
        line = _ANSI.sub("", line).rstrip()
        if not line:
            return None
        if found := _STEP.match(line):
            return self._begin(Step(int(found[1]), int(found[2]), found[3].strip()))
        if found := _BUILDKIT_STEP.match(line):
            step = self._vertex.setdefault(found[1], Step(int(found[2]), int(found[3]), found[4].strip()))
            return self._begin(step)
        text = line
        if (found := _BUILDKIT_LINE.match(line)) and found[1] in self._vertex:
            text = found[2]
            if self._vertex[found[1]] is not self.step:
                self._begin(self._vertex[found[1]])
        if _CACHED.match(text.strip()) and self.step is not None:
            self.step.cached = True
            return self.step
        self.last_line = text.strip()
        self._tail.append(text)
        return None

    @property
    def tail(self) -> list[str]:
        """The last lines of the step's output."""
        return list(self._tail)

    def _begin(self, step: Step) -> Step:
        if step is not self.step:
            self.step, self.last_line = step, ""
            self._tail.clear()
        return step
