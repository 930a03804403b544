"""Receives an answer's next bytes while the last ones are written and hashed, so that one connection keeps two threads busy."""

import threading
from collections.abc import Generator, Sequence
from queue import SimpleQueue

from gen_worker.net.range_client import RangeReply


def read_ahead(reply: RangeReply, size_bytes: int, buffers: Sequence[memoryview]) -> Generator[memoryview]:
    """`reply.chunks` up to `size_bytes`: one buffer is being filled while another is in use. Closing it early aborts the answer."""
    free: SimpleQueue[memoryview | None] = SimpleQueue()
    filled: SimpleQueue[tuple[memoryview, int] | Exception] = SimpleQueue()
    for buffer in buffers:
        free.put(buffer)

    def receive() -> None:
        left = size_bytes
        try:
            while left and (buffer := free.get()) is not None:
                size = reply.read_into(buffer[: min(left, len(buffer))])
                filled.put((buffer, size))
                left -= size or left
        except Exception as exc:  # noqa: BLE001 - it is raised where the chunks are used
            filled.put(exc)

    thread = threading.Thread(target=receive, name="download-ahead", daemon=True)
    thread.start()
    left = size_bytes
    try:
        while left:
            got = filled.get()
            if isinstance(got, Exception):
                raise got
            buffer, size = got
            if not size:
                return
            left -= size
            yield buffer[:size]
            free.put(buffer)
    finally:
        if left:
            reply.hang_up()
            free.put(None)
        thread.join()
