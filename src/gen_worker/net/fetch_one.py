"""Fetches one file from a URL, with nothing else known about it. Blocking."""

import threading
from pathlib import Path

from gen_worker.net.download import fetch
from gen_worker.net.range_client import Link, RangeClient
from gen_worker.net.retry import PASSING, HttpError, PassingError
from gen_worker.net.wanted import DownloadFailedError, Wanted


class _Uncounted:
    def add(self, size_bytes: int) -> None:
        return


def fetch_one(link: Link, target: Path, cancel: threading.Event, *, timeout_s: float) -> None:
    """Fetch one file of unknown size and digest; raises what `net.download.fetch` raises. `timeout_s` limits each wait for bytes."""
    client = RangeClient(read_timeout_s=timeout_s)
    try:
        try:
            with client.get(link, 0, 1) as reply:
                if reply.total is None:
                    raise DownloadFailedError(f"{target.name}: the server does not say its size", passing=False)
                size_bytes = reply.total
        except HttpError as exc:
            if exc.status != 416:  # the answer for an empty file
                raise DownloadFailedError(f"{target.name}: {exc}", passing=exc.status in PASSING, status=exc.status) from exc
            size_bytes = 0
        except PassingError as exc:
            raise DownloadFailedError(f"{target.name}: {exc}", passing=True) from exc
        fetch([Wanted(target, size_bytes, "", lambda expired: link)], client, _Uncounted(), cancel)
    finally:
        client.close()
