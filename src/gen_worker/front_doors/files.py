"""How front doors return files of runs: as bytes, or as a URL that the client can read without a key."""

from typing import Any

from gen_worker.front_doors.inside import Inside
from gen_worker.front_doors.runs import DoneRun, File, ProblemError
from gen_worker.http.asgi import Request
from gen_worker.http.problems import problem


class Files:
    """Reads files by the URLs in run objects, which are valid without a key."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside

    async def read(self, request: Request, file: File) -> tuple[bytes, str]:
        """The bytes of a file, and its media type."""
        status, headers, data = await self._inside.get(request, file.url)
        if status != 200:
            raise ProblemError(problem(status if status >= 400 else 500, "not_found", f"{file.ref!r} cannot be read"))
        return data, file.mime_type or headers.get("content-type", "application/octet-stream")


def link(request: Request, file: File) -> str:
    """The absolute URL of a file."""
    return f"{base_of(request)}{file.url}"


def base_of(request: Request) -> str:
    """This server's address, as the client wrote it."""
    return f"{request.scope.get('scheme', 'http')}://{request.header(b'host')}"


def file_at(run: DoneRun, value: Any) -> File | None:
    """The file that a part of an output is; None when it is not a saved file of this run."""
    if not isinstance(value, dict) or not isinstance(value.get("ref"), str):
        return None
    return next((file for file in run.files or () if file.ref == value["ref"]), None)
