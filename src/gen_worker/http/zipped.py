"""Answers with a large document in gzip, for clients that accept it: a page that is opened loads the whole OpenAPI document."""

import asyncio
import gzip

from gen_worker.http.asgi import Request
from gen_worker.http.headers import accepts_coding

MIN_BYTES = 1400  # less fits into one packet anyway


async def answer_zipped(request: Request, data: bytes) -> None:
    """Answer 200 with a JSON document."""
    headers = {"vary": "accept-encoding"}
    if len(data) >= MIN_BYTES and accepts_coding(request.header(b"accept-encoding"), "gzip"):
        data = await asyncio.to_thread(gzip.compress, data, 6, mtime=0)
        headers["content-encoding"] = "gzip"
    await request.answer(200, data, headers=headers)
