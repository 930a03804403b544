"""Cancels the runs of callers who disconnected while they waited."""

import asyncio
from functools import partial

from gen_worker.dev.runs import DevRun
from gen_worker.http.asgi import Request

WATCH_EVERY_S = 0.05


class DisconnectWatch:
    """Watches waiting callers. Most runs end before anyone could leave, and a timer or a task for each would cost as
    much as an echo run. So one timer serves all: it starts to watch callers that are still there at its second turn.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._new: dict[DevRun, Request] = {}
        self._older: dict[DevRun, Request] = {}
        self._watched: dict[DevRun, asyncio.Task[None]] = {}
        self._ticking = False

    def add(self, request: Request, run: DevRun) -> None:
        """Cancel `run` when the caller of `request` disconnects."""
        self._new[run] = request
        if not self._ticking:
            self._ticking = True
            self._loop.call_later(WATCH_EVERY_S, self._tick)

    def discard(self, run: DevRun) -> None:
        """The run is over."""
        if self._new.pop(run, None) is not None or self._older.pop(run, None) is not None:
            return
        task = self._watched.pop(run, None)
        if task is not None:
            task.cancel()

    def _tick(self) -> None:
        for run, request in self._older.items():
            task = asyncio.ensure_future(request.left())
            task.add_done_callback(partial(_gone, run))
            self._watched[run] = task
        self._older, self._new = self._new, {}
        self._ticking = bool(self._older)
        if self._ticking:
            self._loop.call_later(WATCH_EVERY_S, self._tick)


def _gone(run: DevRun, watched: asyncio.Task[None]) -> None:
    if not watched.cancelled():
        run.token.cancel()
