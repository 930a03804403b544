"""Log lines: a dotted name, then facts. As text by default, as JSON lines for machines (`LOG_FORMAT=json`).

Logging never raises, whatever the facts contain: it is often called while an error is being reported, and must not
become another one.
"""

import sys
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

from gen_worker.texts import repr_of, sound, text_of

_encode = msgspec.json.Encoder(enc_hook=repr_of).encode

TRACE = "traceback"  # name of the fact that contains one


class Log:
    """Writes lines with bound facts, such as a run id, to a stream. Cheap to bind; safe from any thread."""

    def __init__(self, stream: TextIO | None = None, *, as_json: bool = False, facts: dict[str, Any] | None = None) -> None:
        self._stream = stream
        self._as_json = as_json
        self._facts = facts or {}

    @property
    def stream(self) -> TextIO:
        """The stream that it writes to."""
        return self._stream or sys.stderr

    def bind(self, **facts: Any) -> "Log":
        """The same log with more facts on every line."""
        return Log(self._stream, as_json=self._as_json, facts={**self._facts, **facts})

    def info(self, name: str, **facts: Any) -> None:
        self._write("info", name, facts)

    def warning(self, name: str, **facts: Any) -> None:
        self._write("warning", name, facts)

    def error(self, name: str, **facts: Any) -> None:
        self._write("error", name, facts)

    def note(self, text: str, name: str, **facts: Any) -> None:
        """Write `text` unchanged for people, and the event with its facts for machines."""
        if self._as_json:
            self._write("info", name, facts)
        else:
            self._print(text)

    def lost_line(self, lines: int) -> str:
        """The line that takes the place of this many lost lines (`log_pipe`)."""
        return self._line("warning", "log.lines_lost", {"lines": lines})

    def _write(self, level: str, name: str, facts: dict[str, Any]) -> None:
        facts = {**self._facts, **facts}
        try:
            line = self._line(level, name, facts)
        except BaseException:  # noqa: BLE001 - a fact that cannot be encoded: a lone surrogate, a huge number, a circle, an author's object
            line = self._line(level, sound(name), {key: repr_of(value) for key, value in facts.items()})
        self._print(line)

    def _print(self, line: str) -> None:
        stream = self.stream
        try:
            try:
                stream.write(line + "\n")
            except UnicodeEncodeError:  # a stream whose encoding has fewer characters
                stream.write(line.encode("ascii", "backslashreplace").decode() + "\n")
            stream.flush()
        except Exception:  # noqa: BLE001 - a closed stderr, or what an author put in its place, must not take the program with it
            return

    def _line(self, level: str, name: str, facts: dict[str, Any]) -> str:
        now = datetime.now(UTC)
        if self._as_json:
            return _encode({"time": now.isoformat(), "level": level, "event": name, **facts}).decode()
        words, below = [], list[str]()
        for key, value in facts.items():
            # Text of several lines is written line by line, indented so that no line can pass for a line of the log.
            first, *more = value.splitlines() if isinstance(value, str) and "\n" in value else (value,)
            if key == TRACE:
                below += [first, *more]
                continue
            words.append(f"{text_of(key)}={_plain(first)}")
            below += more
        line = f"{now:%H:%M:%S} {level:<7} {name} {' '.join(words)}".rstrip()
        return "\n".join((line, *(f"    {_plain(each)}" for each in below)))


def _plain(value: Any) -> str:
    text = value if isinstance(value, str) else _encode(value).decode()
    # Control characters are escaped, so that a value cannot forge a line or move the cursor.
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
