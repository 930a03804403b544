"""Multipart forms (RFC 7578), read to their end: a form that was cut off is refused, and the files that came with it are gone.

The parser takes what came before the cut for the whole form. Only the closing delimiter (`--boundary--`, RFC 2046, 5.1.1) says that
nothing is missing, so a form without it is never given on: a run would begin with empty fields.
"""

from collections.abc import AsyncGenerator

from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from gen_worker.http.asgi import BodyReader, Request, RequestError

MAX_FILES = 100
MAX_FIELDS = 1000


async def read_form(request: Request, max_bytes: int) -> FormData:
    """The form's fields and files; close it. `RequestError` 400 says what is wrong with it, and then nothing is left to close."""
    reader = BodyReader(request, max_bytes)
    parser = _Parser(
        Headers(raw=request.scope["headers"]), _chunks(reader), max_files=MAX_FILES, max_fields=MAX_FIELDS, max_part_size=max_bytes
    )
    try:
        form = await parser.parse()
        for name, value in form.multi_items():
            for text in (name, value if isinstance(value, str) else value.filename or ""):
                text.isascii() or text.encode()  # some charsets give texts that JSON cannot carry
    except (MultiPartException, KeyError) as exc:
        raise _refused(f"cannot be read: {getattr(exc, 'message', None) or 'it has no boundary'}") from None
    except (LookupError, UnicodeError) as exc:  # a charset that is none, or does not fit
        await _close(parser)
        raise _refused(f"holds texts that cannot be read: {ascii(str(exc))[1:-1]}; send them as UTF-8") from None
    if not parser.ended:
        await _close(parser)
        raise _refused("is cut off: its closing delimiter '--boundary--' is missing; send it again, whole")
    return form


class _Parser(MultiPartParser):
    ended = False

    def on_end(self) -> None:
        self.ended = True


async def _close(parser: _Parser) -> None:
    for _, value in parser.items:
        if isinstance(value, UploadFile):
            await value.close()


def _refused(what: str) -> RequestError:
    return RequestError(400, "invalid_multipart", f"the multipart body {what}", error="invalid_multipart")


async def _chunks(reader: BodyReader) -> AsyncGenerator[bytes, None]:
    while not reader.ended:
        yield await reader.next_chunk()
