"""Reads multipart forms (RFC 7578) completely: a form that was cut off is refused, and its files are deleted.

The parser takes whatever came before the cut as the whole form. Only the closing delimiter (`--boundary--`, RFC 2046,
5.1.1) shows that nothing is missing. A form without it is never passed on, because the run would begin with empty
fields.
"""

import asyncio
from collections.abc import AsyncGenerator

from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from gen_worker.http.asgi import BodyReader, Request, RequestError

MAX_FILES = 100
MAX_FIELDS = 1000
MAX_TEXT_BYTES = 16 << 20  # of all fields that are not files
PIECE_BYTES = 32 << 10  # the parser is Python code and looks at every line break, so it yields to others in between


async def read_form(request: Request, max_bytes: int) -> FormData:
    """The form's fields and files; the caller closes it. `RequestError` 400 says what is wrong, and then there is nothing to close."""
    reader = BodyReader(request, max_bytes)
    parser = _Parser(
        Headers(raw=request.scope["headers"]), _chunks(reader), max_files=MAX_FILES, max_fields=MAX_FIELDS, max_part_size=max_bytes
    )
    try:
        form = await parser.parse()
        for name, value in form.multi_items():
            for text in (name, value if isinstance(value, str) else value.filename or ""):
                text.isascii() or text.encode()  # some charsets give texts that JSON cannot represent
    except (MultiPartException, KeyError) as exc:
        raise _refused(f"cannot be read: {getattr(exc, 'message', None) or 'it has no boundary'}") from None
    except (LookupError, UnicodeError) as exc:  # an unknown charset, or one that does not fit
        await _close(parser)
        raise _refused(f"contains texts that cannot be decoded: {ascii(str(exc))[1:-1]}; send them as UTF-8") from None
    if not parser.ended:
        await _close(parser)
        raise _refused("is cut off: its closing delimiter '--boundary--' is missing; send it again")
    return form


class _Parser(MultiPartParser):
    ended = False
    text_bytes = 0

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._current_part.file is None:
            self.text_bytes += end - start
            if self.text_bytes > MAX_TEXT_BYTES:
                detail = f"the texts of the form have more than {MAX_TEXT_BYTES} bytes; send large inputs as files"
                raise RequestError(413, "too_large", detail)
        super().on_part_data(data, start, end)

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
        chunk = await reader.next_chunk()
        for at in range(0, len(chunk), PIECE_BYTES):
            if at:
                await asyncio.sleep(0)
            yield chunk[at : at + PIECE_BYTES]
