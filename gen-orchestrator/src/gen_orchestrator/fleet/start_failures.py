"""Why releases have no worker, and when to try again.

A worker that exits soon after its start has crashed. Each such exit in a row doubles the wait before the next start (`domain/scaling`).
The reason is shown until a worker of the release has been up for a while.
"""

from gen_orchestrator.domain.scaling import STABLE_S, backoff_s

SHOWN_S = 60.0  # after a worker of the same release is there again


class StartFailures:
    """For all releases. Times are of the monotonic clock."""

    def __init__(self) -> None:
        self.reasons: dict[str, str] = {}  # release -> why it has no worker, such as the last lines of a crashed one
        self._crashes: dict[str, int] = {}
        self._not_before_s: dict[str, float] = {}
        self._since_s: dict[str, float] = {}

    def may_start(self, release_id: str, now_s: float) -> bool:
        """Whether the wait after a crash is over."""
        return now_s >= self._not_before_s.get(release_id, 0.0)

    def crashed(self, release_id: str, reason: str, *, lived_s: float, served: bool, now_s: float) -> float:
        """A worker ended without being told to. Returns the seconds until the next one may be started."""
        is_early = lived_s < STABLE_S and not served
        crashes = self._crashes[release_id] = self._crashes.get(release_id, 0) + 1 if is_early else 1
        delay_s = backoff_s(crashes)
        self._not_before_s[release_id] = now_s + delay_s
        self.failed(release_id, reason, now_s)
        return delay_s

    def failed(self, release_id: str, reason: str, now_s: float) -> None:
        """A worker did not start."""
        self.reasons[release_id] = reason
        self._since_s[release_id] = now_s

    def is_there(self, release_id: str, now_s: float) -> None:
        """The release has a worker now: forget after a while why it had none."""
        if now_s - self._since_s.get(release_id, now_s) > SHOWN_S:
            self.reasons.pop(release_id, None)

    def forget(self, release_id: str) -> None:
        """The start conditions of its workers have changed, so earlier failures no longer count."""
        self.reasons.pop(release_id, None)
        self._crashes.pop(release_id, None)
        self._not_before_s.pop(release_id, None)
