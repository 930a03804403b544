"""Limits of a realtime session that both ends of the wire use.

A sender may have at most `WINDOW_FRAMES` frames or `WINDOW_BYTES` bytes sent and not yet granted. The receiver grants
frames when its reader has begun to work on them, after `GRANT_FRAMES` or `GRANT_BYTES` at the latest. So one frame of
the largest size always fits beside the frames not granted yet, and a session cannot get stuck.
"""

from gen_worker.contract.run import MAX_MESSAGE_BYTES

MAX_FRAME_BYTES = MAX_MESSAGE_BYTES
WINDOW_FRAMES = 256
GRANT_FRAMES = 64
GRANT_BYTES = 1 << 20
WINDOW_BYTES = MAX_FRAME_BYTES + GRANT_BYTES
