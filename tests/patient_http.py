"""httpx waits a minute for an answer where a test does not say how long: its own 5 s are short on a busy machine. For its effect."""

from httpx._config import DEFAULT_TIMEOUT_CONFIG

for _phase in ("connect", "read", "write", "pool"):
    setattr(DEFAULT_TIMEOUT_CONFIG, _phase, 60.0)
