"""A realtime session in the leader's memory: the frames between the client's websocket and the worker that has the run.

    client --offer--> [at most WINDOW_FRAMES or WINDOW_BYTES that the worker has not granted] --> worker
    client <--take--- [at most what the worker may send without credit] <------------------------ worker

Nothing is queued here. Until the worker grants a frame, it stays with the client: the websocket is not read. Credit
goes back to the worker when its frame is on its way to a client that reads. A worker without these extensions
(published 0.3.2) gets frames as they come; frames that it sends faster than the client reads are bounded by
`MAX_UNTAKEN_BYTES`.

    unattached (its run waits) --attach--> attached (its worker has the run) --detach--> unattached --close--> over
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from gen_worker.contract.run import RunSession
from gen_worker.wire.messages import RealtimeCredit, RealtimeFrame, Single
from gen_worker.wire.realtime import WINDOW_BYTES

MAX_UNTAKEN_BYTES = 32 << 20
# A published worker (0.3.2) drops frames that arrive before its handler's thread runs, and does not say when that is.
PLAIN_OPENS_S = 0.5


class Link(Protocol):
    """The stream of the session's worker."""

    @property
    def counts_frames(self) -> bool: ...

    @property
    def counts_frames_back(self) -> bool: ...

    def send(self, message: Single) -> None: ...


class SessionClient(Protocol):
    """The opener of the session."""

    def send(self, data: bytes, *, is_text: bool, taken: Callable[[], None]) -> None:
        """Pass on one frame; call `taken` once it is on its way."""
        ...

    def go_on(self) -> None:
        """There may be room for a frame that was refused before."""
        ...

    def close(self, reason: str) -> None:
        """The session is over; `reason` says why."""
        ...


class LiveSession:
    """One for each run. `on_flood` is called when a worker sends more than can be kept for its client."""

    def __init__(self, session_id: str) -> None:
        self.reason = ""  # why it ends, if known
        self.has_left = False
        self.on_flood: Callable[[], None] = lambda: None
        self._id = session_id
        self._client: SessionClient | None = None
        self._early: list[RealtimeFrame] = []  # the worker may send before the client's upgrade is complete
        self._link: Link | None = None
        self._is_deaf = False  # a plain worker that was sent it a moment ago
        self._credit = 0
        self._ungranted: deque[int] = deque()  # bytes of the frames that the worker has not begun to handle
        self._ungranted_bytes = 0
        self._taken = 0  # frames on their way to the client without credit yet
        self._untaken_bytes = 0
        self._is_over = False
        self._frames_in = self._frames_out = self._bytes_in = self._bytes_out = 0

    @property
    def facts(self) -> RunSession:
        """The traffic so far in both directions."""
        return RunSession(self.reason, self._frames_in, self._frames_out, self._bytes_in, self._bytes_out)

    def join(self, client: SessionClient) -> None:
        """The client's websocket is open."""
        self._client = client
        if self._is_over:
            client.close(self.reason)
            return
        early, self._early = self._early, []
        for frame in early:
            self._pass_on(frame)
        client.go_on()

    # The client's side.

    def offer(self, data: bytes) -> bool:
        """A frame from the client. False, and it is not taken, while the worker has no room: offer it again after
        `go_on`. A session that is over accepts everything, and drops it.
        """
        link = self._link
        if self._is_over:
            return True
        if link is None or self._is_deaf or (link.counts_frames and self._credit <= 0):
            return False
        if link.counts_frames_back and self._ungranted and self._ungranted_bytes + len(data) > WINDOW_BYTES:
            return False
        if link.counts_frames:
            self._credit -= 1
            self._ungranted.append(len(data))
            self._ungranted_bytes += len(data)
        self._frames_in += 1
        self._bytes_in += len(data)
        link.send(RealtimeFrame(self._id, data))
        return True

    # The worker's side.

    def attach(self, link: Link) -> None:
        """The session was sent to a worker."""
        self._link = link
        self._credit = 0
        self._ungranted.clear()
        self._ungranted_bytes = 0
        self._is_deaf = not link.counts_frames
        if self._is_deaf:
            asyncio.get_running_loop().call_later(PLAIN_OPENS_S, self._hears, link)

    def detach(self) -> None:
        """No worker has the run any more."""
        self._link = None

    def grant(self, frames: int) -> None:
        """The worker can take this many more frames. The first grant opens the window; later ones are for frames that
        it has begun to handle.
        """
        self._credit += max(0, frames)
        for _ in range(min(max(0, frames), len(self._ungranted))):
            self._ungranted_bytes -= self._ungranted.popleft()
        if self._client is not None:
            self._client.go_on()

    def take(self, frame: RealtimeFrame) -> None:
        """A frame from the worker."""
        if self._is_over:
            return
        if self._is_deaf and self._link is not None:
            self._hears(self._link)  # its handler speaks, so it runs
        self._untaken_bytes += len(frame.data)
        if self._untaken_bytes > MAX_UNTAKEN_BYTES:
            self.on_flood()
        elif self._client is None:
            self._early.append(frame)
        else:
            self._pass_on(frame)

    def close(self, reason: str) -> None:
        """The session is over. May be called again; the first reason counts."""
        if self._is_over:
            return
        self._is_over = True
        self.reason = self.reason or reason
        self._link = None
        self._early.clear()
        if self._client is not None:
            self._client.close(self.reason)

    def _hears(self, link: Link) -> None:
        if link is self._link:
            self._is_deaf = False
            if self._client is not None:
                self._client.go_on()

    def _pass_on(self, frame: RealtimeFrame) -> None:
        assert self._client is not None
        self._frames_out += 1
        self._bytes_out += len(frame.data)
        size_bytes, link = len(frame.data), self._link
        self._client.send(frame.data, is_text=frame.is_text, taken=lambda: self._was_taken(size_bytes, link))

    def _was_taken(self, size_bytes: int, link: Link | None) -> None:
        self._untaken_bytes -= size_bytes
        if link is None or link is not self._link or not link.counts_frames_back:
            return
        self._taken += 1
        if self._taken == 1:  # frames that come together are credited in one message
            asyncio.get_running_loop().call_soon(self._credit_taken)

    def _credit_taken(self) -> None:
        taken, self._taken = self._taken, 0
        if self._link is not None:
            self._link.send(RealtimeCredit(self._id, taken))
