"""Bounds of a realtime session that both ends of the wire count by.

Frames that were sent and that nobody has granted yet lie with the receiver. The sender stops at `WINDOW_FRAMES` or `WINDOW_BYTES` of them.
The receiver grants what its reader has begun with, at the latest after `GRANT_FRAMES` or `GRANT_BYTES`: so one frame of the largest size
always fits beside what is not granted yet, and no session stands still.
"""

MAX_FRAME_BYTES = (16 << 20) - (32 << 10)  # with its envelope it fits into a message of the wire, of 16 MiB
WINDOW_FRAMES = 256
GRANT_FRAMES = 64
GRANT_BYTES = 1 << 20
WINDOW_BYTES = MAX_FRAME_BYTES + GRANT_BYTES
