"""Waits for changes of files, and acts on each.

    the system's notifications (watchfiles)      say that something may have changed, within milliseconds
    a look at the watched files (`SourceTree`)   says what has changed; a notification alone is never trusted
    a check each second                          of what no notification reports: the project's folder itself, targets of links

Notifications are requested only for folders that contain watched files, one by one. Requesting a whole tree would
include environments with tens of thousands of files, and any target of a link. So a new or recreated folder means
requesting notifications anew and then looking once more: that look finds what happened in between. When the system has
no notifications left, or offers none (network file systems), the files are checked twice a second instead.
"""

import asyncio
import os
import platform
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from gen_worker.project.source_tree import SourceTree, Stamp, identity_of, is_skipped

STEP_MS = 20  # notifications closer together than this belong to one change
GATHER_MS = 200  # during an endless series of notifications, the files are checked this often
GLANCE_MS = 1000
POLL_S = 0.5
REST = 4  # after a check, wait this many times as long as it took
MAX_REST_S = 2.0
TRY_AGAIN_S = 30.0  # time until notifications are requested again when none were left

Act = Callable[[str], Awaitable[None]]


class Files(Protocol):
    """What is watched."""

    def read(self) -> SourceTree:
        """The current state of the files. Blocking."""

    def takes(self, path: str) -> bool:
        """Whether a file with this path would be one of them."""


async def follow_changes(files: Files, seen: dict[str, Stamp], act: Act, say: Callable[[str], None], *, polls: bool = False) -> None:
    """Call `act` with the path of a changed file whenever the files differ from `seen`, until cancelled.

    Changes during `act` are handled when it has ended. `say` gets a line for the user, once, when the system's
    notifications cannot be used; with `polls` they are not requested.
    """
    loop, news, stop = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    latest = [seen]

    def tell(now: dict[str, Stamp]) -> None:
        latest[0] = now
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(news.set)

    def tell_people(text: str) -> None:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(say, text)

    watcher = _Watcher(files, tell, tell_people, stop, polls=polls)
    threading.Thread(target=watcher.run, name="watch", daemon=True).start()
    try:
        while True:
            await news.wait()
            news.clear()
            now = latest[0]
            if now != seen:
                before, seen = seen, now  # recorded even if what follows fails: the same state would fail again
                await act(min(path for path, _ in before.items() ^ now.items()))
    finally:
        stop.set()


def polls_files(env: Mapping[str, str]) -> bool:
    """Whether to check twice a second instead of using notifications: when watchfiles' own variable says so, and under
    WSL, whose Windows drives send none.
    """
    said = env.get("WATCHFILES_FORCE_POLLING", "").lower()
    if said:
        return said not in ("false", "disable", "disabled")
    return sys.platform == "linux" and "microsoft-standard" in platform.release().lower()


class _Watcher:
    """The blocking side, in a thread of its own."""

    def __init__(
        self, files: Files, tell: Callable[[dict[str, Stamp]], None], say: Callable[[str], None], stop: threading.Event, *, polls: bool
    ) -> None:
        self._files, self._tell, self._say, self._stop, self._polls = files, tell, say, stop, polls
        self._said: set[str] = set()
        self._next_look_s = 0.0

    def run(self) -> None:
        """Runs until it is stopped, whatever a folder or a file system does."""
        while not self._stop.is_set():
            try:
                self._round()
            except Exception as exc:  # noqa: BLE001 - the boundary of the watch: the server beside it goes on
                self._poll(f"watching failed: {type(exc).__name__}: {exc}")

    def _round(self) -> None:
        tree = self._look()
        self._tell(tree.files)
        if self._polls:
            self._poll("")
            return
        try:
            from watchfiles._rust_notify import RustNotify, WatchfilesRustInternalError
        except ImportError:
            self._poll("watchfiles is not installed; install it with: pip install watchfiles")
            return
        try:
            notify = RustNotify(_watchable(tree), False, False, 0, False, True)  # it takes positional arguments only
        except FileNotFoundError:  # a folder, or the project, has gone since the check
            self._stop.wait(0.05)
        except (OSError, WatchfilesRustInternalError) as exc:
            more = "sudo sysctl fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=1024"
            self._poll(f"the system has no file notifications left for this user ({exc}); more are allowed by: {more}")
        else:
            with notify:
                self._follow(notify, tree)

    def _follow(self, notify: Any, asked: SourceTree) -> None:
        """Watch until the folders differ from those in `asked`."""
        tree = self._look()  # finds what happened before the notifications began
        while tree.folders == asked.folders and tree.targets == asked.targets:
            self._tell(tree.files)
            found = notify.watch(GATHER_MS, STEP_MS, GLANCE_MS, self._stop)
            if found == "timeout":
                if any(identity_of(path) != identity for path, identity in tree.loose.items()):
                    return
            elif isinstance(found, str):  # stopped
                return
            else:
                paths = {path for _, path in found}
                if not tree.folders.isdisjoint(paths):  # one of them was deleted, moved or recreated: its watch may be dead
                    return
                if any(self._concerns(path, tree) for path in paths):
                    tree = self._look()

    def _concerns(self, path: str, tree: SourceTree) -> bool:
        name = os.path.basename(path)
        return path in tree.targets or (not is_skipped(name) and (self._files.takes(path) or os.path.isdir(path)))

    def _poll(self, why: str) -> None:
        """Check twice a second for a while, and report `why`, once."""
        if why and why not in self._said:
            self._said.add(why)
            self._say(f"checking for changes twice a second, because {why}")
        until_s = time.monotonic() + TRY_AGAIN_S
        while time.monotonic() < until_s and not self._stop.wait(POLL_S):
            self._tell(self._look().files)

    def _look(self) -> SourceTree:
        """Read the files. After a slow read the next one waits, so that very many files do not keep a processor busy."""
        self._stop.wait(max(0.0, self._next_look_s - time.monotonic()))
        began_s = time.monotonic()
        try:
            return self._files.read()
        finally:
            now_s = time.monotonic()
            self._next_look_s = now_s + min(REST * (now_s - began_s), MAX_REST_S)


def _watchable(tree: SourceTree) -> list[str]:
    """The folders to request notifications for: those of the files, and those of the targets of links. Folders whose
    names are not valid text are left out.
    """
    folders = {*tree.folders, *(os.path.dirname(target) for target in tree.targets)}
    return sorted(folder for folder in folders if folder.isascii() or folder == folder.encode(errors="replace").decode())
