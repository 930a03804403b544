"""Limits on waiting runs, and the answer to a caller that must come back later. Pure."""

import msgspec

MAX_QUEUED_OF_FUNCTION = 1000
MAX_QUEUED_OF_OWNER = 10_000
MAX_QUEUED_BYTES_OF_OWNER = 256 << 20
MIN_RETRY_AFTER_S = 1
MAX_RETRY_AFTER_S = 600


class Load(msgspec.Struct, frozen=True):
    """What is waiting now, and how many runs of the function end in a second (0: none was seen yet)."""

    queued_of_function: int
    queued_of_owner: int
    queued_bytes_of_owner: int
    ends_per_s: float = 0.0
    queue_max: int = MAX_QUEUED_OF_FUNCTION


class Refusal(msgspec.Struct, frozen=True):
    """The reason for a refusal, and when to try again."""

    detail: str
    retry_after_s: int
    queue_depth: int


def refusal(load: Load, payload_bytes: int, start_timeout_s: float) -> Refusal | None:
    """None when a run may wait; otherwise the refusal."""
    depth = load.queued_of_function
    wait_s = depth / load.ends_per_s if load.ends_per_s else 0.0
    if depth >= load.queue_max:
        return _refusal(f"{depth} runs of this function are already waiting; at most {load.queue_max} may wait", load)
    if load.queued_of_owner >= MAX_QUEUED_OF_OWNER:
        return _refusal(f"{load.queued_of_owner} runs of this owner are already waiting; at most {MAX_QUEUED_OF_OWNER} may wait", load)
    if load.queued_bytes_of_owner + payload_bytes > MAX_QUEUED_BYTES_OF_OWNER:
        limit = MAX_QUEUED_BYTES_OF_OWNER >> 20
        return _refusal(
            f"the waiting payloads of this owner hold {load.queued_bytes_of_owner >> 20} MiB; at most {limit} MiB may wait", load
        )
    if start_timeout_s and wait_s > start_timeout_s:
        return _refusal(f"the expected wait of {wait_s:.0f} s is longer than the start timeout of {start_timeout_s:.0f} s", load)
    return None


def _refusal(detail: str, load: Load) -> Refusal:
    # Roughly the time until a tenth of the queue is done.
    after_s = load.queued_of_function / 10 / load.ends_per_s if load.ends_per_s else MIN_RETRY_AFTER_S
    return Refusal(detail, round(min(max(after_s, MIN_RETRY_AFTER_S), MAX_RETRY_AFTER_S)), load.queued_of_function)
