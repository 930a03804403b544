"""Events of a run while its worker has it: used by the control plane itself, kept for readers, and stored.

    Event --noted--> started, metrics, warnings, stuck
          --shown--> the run's feed --> the store; its acknowledgement (`Hold`) waits for that write

An event of an earlier attempt, an event that the feed already has, and an event that is not JSON are dropped.

All events of a stored run are kept, whoever reads them and however slowly: no reader can hold up a worker, which has other
runs. So their bytes are limited. Beyond the limit the run ends if it sends more output; what else it reports is dropped.
"""

from collections.abc import Callable

from gen_orchestrator.scheduling.heard import is_json, kept_metrics
from gen_orchestrator.scheduling.open_run import OpenRun, Phase
from gen_orchestrator.scheduling.recorder import Recorder
from gen_orchestrator.scheduling.shown_events import is_step, shown_as, warnings_of
from gen_worker import events
from gen_worker.clock import Clock
from gen_worker.texts import sound
from gen_worker.wire.holds import Hold
from gen_worker.wire.messages import Event

MAX_TYPE_CHARS = 200  # the limit for an author's event type in our workers


class RunEvents:
    """One for each leader."""

    def __init__(self, recorder: Recorder, clock: Clock, most_bytes: int, flooded: Callable[[OpenRun], None]) -> None:
        """`most_bytes`: of the events of one run; 0: no limit. `flooded` ends a run that sends more output."""
        self._recorder = recorder
        self._clock = clock
        self._most_bytes = most_bytes
        self._flooded = flooded

    def take(self, open_run: OpenRun, event: Event, instance_id: str, hold: Hold) -> None:
        """Process an event from this instance of the run's worker."""
        if open_run.phase is not Phase.LEASED or event.attempt not in (0, open_run.run.attempt):
            return
        if event.payload and not is_json(event.payload):
            return
        name = "output" if event.event_type == events.OUTPUT_DELTA else self._note(open_run, event)
        if name is None:
            return
        if not open_run.first_output_at and name == "output":
            open_run.first_output_at = self._clock.unix_s()
        if self._most_bytes and open_run.feed.heard_bytes >= self._most_bytes and not open_run.volatile:
            if name == "output":
                self._flooded(open_run)
            return
        source = (instance_id, hold.number)
        kind, data = sound(event.event_type, MAX_TYPE_CHARS), event.payload or b"{}"
        if open_run.feed.append(open_run.run.attempt, name, kind, data, source) is None:
            return
        # one hold is enough for events that came together
        if not open_run.volatile and (not open_run.holds or open_run.holds[-1] is not hold):
            open_run.holds.append(hold.take())
        self._recorder.save_events(open_run)

    def _note(self, open_run: OpenRun, event: Event) -> str | None:
        """Note what the control plane needs from an event. Returns its name for readers, None when they do not see it."""
        kind = event.event_type
        if kind == events.STARTED:
            open_run.started = True
            open_run.started_s = self._clock.now_s()
            open_run.feed.status_changed()
            if open_run.run.webhook:
                self._recorder.started(open_run, self._clock.unix_s())
        elif kind == events.METRICS_RUN:
            open_run.metrics = kept_metrics(event.payload)
        elif kind == events.WARNING:
            open_run.warnings = warnings_of(event.payload)
        elif kind.endswith(".stuck"):
            open_run.stuck = event.payload or b"{}"
        elif open_run.stuck and is_step(kind):
            open_run.stuck = b""  # the run continues
        return shown_as(kind)
