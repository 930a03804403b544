"""Who is told that a worker has joined."""

from gen_orchestrator.scheduling.pool import Pool, Worker


def test_a_worker_that_leaves_at_once_was_still_seen() -> None:
    """The keeper looks once a second; what joined and ended well in between has not crashed at its start."""
    pool = Pool()
    seen: list[Worker] = []
    pool.when_joined(seen.append)
    worker = Worker("w-1", "owner", "release-1")
    pool.add(worker)
    pool.remove(worker)
    assert seen == [worker]
    assert list(pool) == []
