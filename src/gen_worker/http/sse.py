"""Server-sent events (HTML standard, section 9.2): frames with numbered ids, and where to resume."""

MEDIA_TYPE = b"text/event-stream; charset=utf-8"
HEARTBEAT_S = 15.0
HEARTBEAT = b": still here\n\n"


def frame(event_id: int, name: str, data: bytes) -> bytes:
    """One event. `data` is JSON without line breaks, because a line break would split it."""
    if b"\n" in data or b"\r" in data:
        data = b"\ndata: ".join(data.splitlines())
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (event_id, name.encode(), data)


def last_event_id(header: str) -> int:
    """The last id seen by a client, from its `Last-Event-ID` header; 0 when there is none. `ValueError` when it is not an id."""
    text = header.strip()
    if not text:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ValueError(f"Last-Event-ID {text[:40]!r} is not a number that this server sent")
    return int(text)
