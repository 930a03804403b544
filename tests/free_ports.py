"""Ports for servers whose address must be known before they start."""

import random
import socket

# Below the range from which systems take ports for outgoing connections and for port 0: while tests run side by side, a port from
# there may be taken again before its server listens.
_FIRST, _LAST = 12_000, 32_000


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    while True:
        port = random.randint(_FIRST, _LAST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
