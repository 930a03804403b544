"""A lane is one function of one release: its queue, its settings, and how long its runs take."""

import msgspec

from gen_orchestrator.domain.queue import FairQueue
from gen_orchestrator.domain.routing import Need
from gen_orchestrator.domain.settings import FunctionSettings

WEIGHT = 0.1  # weight of the newest run in the moving averages


class Lane:
    """Exists as long as someone runs or may run the function of this release."""

    def __init__(self, release_id: str, function: str, settings: FunctionSettings) -> None:
        self.release_id = release_id
        self.function = function
        self.settings = settings
        self.queue = FairQueue()
        self.run_s = 0.0  # moving average; 0 before the first run
        self.running = 0
        self._gap_s = 0.0
        self._last_end_s = 0.0

    @property
    def ends_per_s(self) -> float:
        """How many runs ended per second lately; 0 before that is known."""
        return 1 / self._gap_s if self._gap_s > 0 else 0.0

    def ended(self, took_s: float, now_s: float) -> None:
        """A run has ended after this time on its worker."""
        self.run_s = took_s if self.run_s == 0 else self.run_s + WEIGHT * (took_s - self.run_s)
        if self._last_end_s:
            gap_s = min(max(now_s - self._last_end_s, 1e-6), 60.0)
            self._gap_s = gap_s if self._gap_s == 0 else self._gap_s + WEIGHT * (gap_s - self._gap_s)
        self._last_end_s = now_s

    def need(self, payload: bytes) -> Need:
        """What a run with this payload needs."""
        settings = self.settings
        models = settings.models
        if settings.model_fields:
            picked = msgspec.msgpack.decode(payload)
            if isinstance(picked, dict):
                refs = (settings.models_by_key.get(str(picked.get(field))) for field in settings.model_fields)
                models += tuple(ref for ref in refs if ref is not None)
        return Need(models=models, run_s=self.run_s)
