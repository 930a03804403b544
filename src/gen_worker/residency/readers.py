"""The threads that read weight files for a device."""

import os
from concurrent.futures import ThreadPoolExecutor

from gen_worker.residency.reader_count import MOST, ReaderCount


class Readers:
    """Threads that live on from load to load, and how many of them pay."""

    def __init__(self, processors: int | None = None) -> None:
        self.count = ReaderCount(processors or usable_processors())
        self.pool = ThreadPoolExecutor(MOST + 2, thread_name_prefix="model-load-read")


def usable_processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
