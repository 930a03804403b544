"""Wait for changes of files, and act on each.

    the system's notifications (watchfiles)      say that something may have changed, within milliseconds
    a look at the watched files (`SourceTree`)   says what has changed; a notification alone is never believed
    a glance each second                         at what nobody announces: the project's folder itself, targets of links

Only the folders that hold watched files are asked for, one by one: asking for a whole tree would take environments of tens of thousands
of files, and whatever a link leads to. So a folder that is new, or was made again, means asking anew, and then looking once more: what
happened in between is seen by that look. Where the system has no notifications left, or has none (network file systems), the files are
looked at twice a second instead.
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

STEP_MS = 20  # notifications that come closer together than this belong to one change
GATHER_MS = 200  # but an endless row of them is looked at this often
GLANCE_MS = 1000
POLL_S = 0.5
REST = 4  # times as long as a look took is rested after it
MAX_REST_S = 2.0
TRY_AGAIN_S = 30.0  # for notifications, where there were none left

Act = Callable[[str], Awaitable[None]]


class Files(Protocol):
    """What is watched."""

    def read(self) -> SourceTree:
        """How the files are now. Blocking."""

    def takes(self, path: str) -> bool:
        """Whether a file of this path would be one of them."""


async def follow_changes(files: Files, seen: dict[str, Stamp], act: Act, say: Callable[[str], None], *, polls: bool = False) -> None:
    """Call `act` with the path of a changed file whenever the files are not as `seen`, until cancelled.

    What changes while `act` runs is acted on when it has ended. `say` gets a line for people, once, where the system's notifications
    cannot be used; with `polls` they are not asked for.
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
                before, seen = seen, now  # taken as seen even if what follows fails: the same state would fail again
                await act(min(path for path, _ in before.items() ^ now.items()))
    finally:
        stop.set()


def polls_files(env: Mapping[str, str]) -> bool:
    """Whether to look twice a second: where watchfiles' own variable says so, and under WSL, whose Windows drives notify nobody."""
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
        """Until it is stopped. Whatever a folder or a file system does, it goes on."""
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
            notify = RustNotify(_watchable(tree), False, False, 0, False, True)  # it takes no names
        except FileNotFoundError:  # a folder has gone since the look, or the project has
            self._stop.wait(0.05)
        except (OSError, WatchfilesRustInternalError) as exc:
            more = "sudo sysctl fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=1024"
            self._poll(f"the system has no more notifications for this user ({exc}); more are allowed by: {more}")
        else:
            with notify:
                self._follow(notify, tree)

    def _follow(self, notify: Any, asked: SourceTree) -> None:
        """Until the folders are others than those `asked` for."""
        tree = self._look()  # at what happened before the notifications began
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
                if not tree.folders.isdisjoint(paths):  # one of them was deleted, moved or made again: its watch may be dead
                    return
                if any(self._concerns(path, tree) for path in paths):
                    tree = self._look()

    def _concerns(self, path: str, tree: SourceTree) -> bool:
        name = os.path.basename(path)
        return path in tree.targets or (not is_skipped(name) and (self._files.takes(path) or os.path.isdir(path)))

    def _poll(self, why: str) -> None:
        """Look twice a second, for a while, and say `why`, once."""
        if why and why not in self._said:
            self._said.add(why)
            self._say(f"looking for changes twice a second, because {why}")
        until_s = time.monotonic() + TRY_AGAIN_S
        while time.monotonic() < until_s and not self._stop.wait(POLL_S):
            self._tell(self._look().files)

    def _look(self) -> SourceTree:
        """Read the files. After a look that took long, the next one waits: very many files must not keep a processor busy."""
        self._stop.wait(max(0.0, self._next_look_s - time.monotonic()))
        began_s = time.monotonic()
        try:
            return self._files.read()
        finally:
            now_s = time.monotonic()
            self._next_look_s = now_s + min(REST * (now_s - began_s), MAX_REST_S)


def _watchable(tree: SourceTree) -> list[str]:
    """The folders to ask for: those of the files, and those of what files are links to. Names that are no text cannot be asked for."""
    folders = {*tree.folders, *(os.path.dirname(target) for target in tree.targets)}
    return sorted(folder for folder in folders if folder.isascii() or folder == folder.encode(errors="replace").decode())
