"""A scheduler that asks for few events gets only those events of a run whose facts are not in its result."""

from collections.abc import Iterable

import pytest

from gen_worker import events
from gen_worker.events import RunEvent
from gen_worker.runtime.wire_runs import WireSink
from gen_worker.wire.messages import Event, Single
from gen_worker.wire.outbox import Outbox


class OneVoice:
    """A voice that keeps what is said."""

    def __init__(self, *, few: bool) -> None:
        self.outbox = Outbox()
        self.wants_few_events = few
        self.said: list[str] = []

    def say(self, message: Single) -> None:
        assert isinstance(message, Event)
        self.said.append(message.event_type)

    def say_event(self, event: Event) -> None:
        self.say(event)

    def say_events(self, events: Iterable[Event]) -> None:
        for event in events:
            self.say(event)


@pytest.mark.parametrize("few", [True, False])
def test_steps_that_the_result_tells_are_left_out_where_nobody_wants_them(few: bool) -> None:
    kinds = [
        *sorted(events.TOLD_BY_THE_RESULT),
        events.STARTED,
        events.METRICS_RUN,
        events.OUTPUT_DELTA,
        events.LOG,
        events.FAILED,
        "my.own",
    ]
    voice = OneVoice(few=few)
    WireSink("r", voice).emit_all([RunEvent(kind, {}) for kind in kinds])
    assert voice.said == (kinds[len(events.TOLD_BY_THE_RESULT) :] if few else kinds)


@pytest.mark.parametrize("few", [True, False])
@pytest.mark.parametrize("together", [True, False])
def test_a_run_with_nothing_to_prepare_says_once_that_it_has_begun(few: bool, together: bool) -> None:
    voice = OneVoice(few=few)
    sink, begun, computes = WireSink("r", voice), RunEvent(events.STARTED, {}), RunEvent(events.INFERENCE_STARTED, {})
    for batch in ([begun, computes],) if together else ([begun], [computes]):
        sink.emit_all(batch)
    assert voice.said == [events.STARTED, events.INFERENCE_STARTED][: 1 if few and together else 2]
