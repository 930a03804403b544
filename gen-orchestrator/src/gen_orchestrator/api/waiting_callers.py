"""Work that only its caller waits for: it ends when the caller disconnects, for example by Ctrl-C in `cozyctl promote`."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from gen_worker.http.asgi import DisconnectedError, Request

T = TypeVar("T")


async def while_waited_for(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. When the caller disconnects, `work` is cancelled, and `DisconnectedError` ends the request,
    so nothing after it is done either. For a request whose body has been read.
    """
    doing, gone = asyncio.ensure_future(work), asyncio.ensure_future(request.left())
    try:
        await asyncio.wait([doing, gone], return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            raise DisconnectedError
        return doing.result()
    finally:
        doing.cancel()
        gone.cancel()
        await asyncio.gather(doing, gone, return_exceptions=True)
