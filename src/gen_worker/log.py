"""Log lines: a dotted name, then facts. For people by default, JSON lines for machines (`LOG_FORMAT=json`)."""

import sys
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

_encode = msgspec.json.Encoder(enc_hook=repr).encode


class Log:
    """Writes lines to a stream with bound facts, such as a run id. Cheap to bind; safe from any thread."""

    def __init__(self, stream: TextIO | None = None, *, as_json: bool = False, facts: dict[str, Any] | None = None) -> None:
        self._stream = stream
        self._as_json = as_json
        self._facts = facts or {}

    def bind(self, **facts: Any) -> "Log":
        """The same log with more facts on every line."""
        return Log(self._stream, as_json=self._as_json, facts={**self._facts, **facts})

    def info(self, name: str, **facts: Any) -> None:
        self._write("info", name, facts)

    def warning(self, name: str, **facts: Any) -> None:
        self._write("warning", name, facts)

    def error(self, name: str, **facts: Any) -> None:
        self._write("error", name, facts)

    def _write(self, level: str, name: str, facts: dict[str, Any]) -> None:
        now = datetime.now(UTC)
        facts = {**self._facts, **facts}
        if self._as_json:
            line = _encode({"time": now.isoformat(), "level": level, "event": name, **facts}).decode()
        else:
            words = " ".join(f"{key}={_plain(value)}" for key, value in facts.items())
            line = f"{now:%H:%M:%S} {level:<7} {name} {words}".rstrip()
        stream = self._stream or sys.stderr
        try:
            stream.write(line + "\n")
            stream.flush()
        except (OSError, ValueError):  # a closed stderr must not take the program with it
            return


def _plain(value: Any) -> str:
    text = value if isinstance(value, str) else _encode(value).decode()
    # Control characters are escaped, so that a value cannot forge a line or move the cursor.
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
