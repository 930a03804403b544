"""Measures what attempts use (`domain/receipts`), from the workers' reports and this program's clock."""

from gen_orchestrator.domain.receipts import Prices, Said, Usage, attempt
from gen_orchestrator.scheduling.heard import metrics_in, moved_models
from gen_orchestrator.scheduling.open_run import OpenRun, Phase
from gen_orchestrator.scheduling.pool import Worker
from gen_worker.clock import Clock


class Meter:
    """One for each leader."""

    def __init__(self, clock: Clock, prices: Prices | None = None) -> None:
        self._clock = clock
        self._prices = prices

    def given(self, open_run: OpenRun, worker: Worker, now_s: float) -> None:
        """A run goes to a worker: its wait until that worker had joined was a cold start."""
        open_run.began_s = open_run.listed_s = now_s
        waited_s = worker.joined_s - open_run.waits_since_s
        if 0 < waited_s <= now_s - open_run.waits_since_s:
            open_run.used += Usage(cold_ms=round(waited_s * 1000))

    def adopted(self, open_run: OpenRun, now_s: float) -> None:
        """A worker has this run from an earlier leader; the store says since when."""
        open_run.began_s = now_s - max(0.0, self._clock.unix_s() - open_run.run.leased_at) if open_run.run.leased_at else now_s
        open_run.started, open_run.started_s, open_run.listed_s = True, open_run.began_s, now_s

    def ended(self, open_run: OpenRun, worker: Worker) -> None:
        """The worker's attempt is over, however it ended. An attempt that did not begin used nothing."""
        if open_run.phase is not Phase.LEASED or not (open_run.started or open_run.metrics):
            return
        now_s, resources = self._clock.now_s(), worker.resources
        has_gpu = resources.gpu_count > 0 or resources.gpu_memory_bytes > 0
        open_run.used += attempt(
            _said(open_run.metrics),
            had_s=now_s - open_run.began_s,
            worked_s=now_s - open_run.started_s if open_run.started else 0.0,
            gpu=resources.gpu_name if has_gpu else None,
            prices=self._prices,
        )


def _said(metrics_json: bytes) -> Said:
    if not metrics_json:
        return Said()
    metrics = metrics_in(metrics_json)
    moved = moved_models(metrics)
    load_ms = metrics.gpu_load_ms or 0
    device_ms = None if metrics.inference_ms is None else load_ms + metrics.inference_ms
    return Said(device_ms, load_ms + moved.download_ms, moved.downloaded_bytes, moved.loaded_bytes)
