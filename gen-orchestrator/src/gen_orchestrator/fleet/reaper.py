"""Runs the program that briefly outlives this one (`leftovers`): started with the first worker, and informed of each."""

import asyncio
import contextlib
import sys

from gen_orchestrator.fleet import leftovers


class Reaper:
    """One for each fleet. If the program is killed, the next worker starts another, which is told about all running workers."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._lines: dict[str, str] = {}
        self._starting = asyncio.Lock()

    async def add(self, mark: str, session: int, *, stays: bool) -> None:
        """A worker was started; `stays`: it continues for a while when this program is gone."""
        self._lines[mark] = f"+ {mark} {session} {int(stays)}\n"
        async with self._starting:
            if self._process is None or self._process.returncode is not None:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-I",
                    "-S",
                    leftovers.__file__,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.DEVNULL,
                    start_new_session=True,  # a signal to our process group must not end it
                )
                self._tell("".join(self._lines.values()))
            else:
                self._tell(self._lines[mark])

    async def ended(self, mark: str, session: int) -> None:
        """A worker is gone: kill what it left behind."""
        await asyncio.to_thread(leftovers.end_all, [mark], [session])
        if self._lines.pop(mark, None) is not None:
            self._tell(f"- {mark}\n")

    async def close(self) -> None:
        """No worker is left: let the program end."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()
            await process.wait()

    def _tell(self, lines: str) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(ConnectionError, RuntimeError):  # it was killed: the next worker starts another
                self._process.stdin.write(lines.encode())
