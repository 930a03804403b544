"""Limits of a realtime session that both ends of the wire use.

A sender may have at most `WINDOW_FRAMES` frames or `WINDOW_BYTES` bytes sent and not yet granted. The receiver grants
frames when its reader has begun to work on them, after `GRANT_FRAMES` or `GRANT_BYTES` at the latest. So one frame of
the largest size always fits beside the frames not granted yet, and a session cannot get stuck.
"""

MAX_FRAME_BYTES = (16 << 20) - (32 << 10)  # with its envelope, a frame fits into a wire message of 16 MiB
WINDOW_FRAMES = 256
GRANT_FRAMES = 64
GRANT_BYTES = 1 << 20
WINDOW_BYTES = MAX_FRAME_BYTES + GRANT_BYTES
