"""Ids of runs."""

import random
import time

# Seeded by the system once; asking it for each id costs as much as accepting a run.
_random = random.Random(random.SystemRandom().getrandbits(256))  # noqa: S311 - ids, not secrets


def new_run_id() -> str:
    """An id that sorts by its creation time."""
    return f"{time.time_ns() // 1_000_000:012x}{_random.getrandbits(80):020x}"
