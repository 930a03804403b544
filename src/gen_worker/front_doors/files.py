"""Files of runs, as front doors give them on: their bytes, or an address that the door's client can read without a key."""

from typing import Any

import msgspec

from gen_worker.contract.problem import Problem
from gen_worker.front_doors.inside import Inside
from gen_worker.front_doors.runs import DoneRun, File, ProblemError
from gen_worker.http.asgi import Request
from gen_worker.http.problems import problem

LINK_LIFE = "24h"


class Files:
    """`signs`: whether files here are behind keys, so that an address has to be signed."""

    def __init__(self, inside: Inside, *, signs: bool) -> None:
        self._inside = inside
        self._signs = signs

    async def read(self, request: Request, file: File) -> tuple[bytes, str]:
        """The bytes of a file, and its media type."""
        status, headers, data = await self._inside.get(request, file.url)
        if status != 200:
            raise ProblemError(problem(status if status >= 400 else 500, "not_found", f"{file.ref!r} cannot be read"))
        return data, file.mime_type or headers.get("content-type", "application/octet-stream")

    async def link(self, request: Request, file: File) -> str:
        """The whole address of a file."""
        if self._signs:
            status, _, data = await self._inside.get(request, f"{file.url}?sign={LINK_LIFE}")
            if status != 200:
                raise ProblemError(msgspec.json.decode(data, type=Problem))
            return str(msgspec.json.decode(data)["url"])
        return f"{base_of(request)}{file.url}"


def base_of(request: Request) -> str:
    """This server's address, as the client wrote it."""
    return f"{request.scope.get('scheme', 'http')}://{request.header(b'host')}"


def file_at(run: DoneRun, value: Any) -> File | None:
    """The file that a part of an output is; None for what is no saved file of this run."""
    if not isinstance(value, dict) or not isinstance(value.get("ref"), str):
        return None
    return next((file for file in run.files or () if file.ref == value["ref"]), None)
