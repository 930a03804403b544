"""The last events of a run."""

from collections.abc import Callable, Sequence

import msgspec

from gen_worker import events
from gen_worker.authoring.context import ActionContext
from gen_worker.authoring.signature import FunctionSpec
from gen_worker.events import RunEvent
from gen_worker.execution.phases import run_metrics, utc_now
from gen_worker.outcome import Outcome
from gen_worker.residency.manager import ModelUse


class RunTimes(msgspec.Struct, frozen=True, gc=False):
    """Seconds of the run's clock. `inference_began_s` is None when the run did not get that far."""

    now_s: float
    began_s: float
    inference_began_s: float | None

    @property
    def inference_s(self) -> float:
        return 0.0 if self.inference_began_s is None else self.now_s - self.inference_began_s


def add_ending(
    ending: list[RunEvent],
    outcome: Outcome,
    spec: FunctionSpec,
    times: RunTimes,
    payload: msgspec.Struct | None,
    uses: Sequence[ModelUse],
    ctx: ActionContext | None,
    broke: Callable[[str, BaseException], None],
) -> None:
    """Append them to `ending` one by one, so that a failure loses none of the earlier ones. `broke` is told what could
    not be measured.
    """
    if not outcome.success:
        if spec.output_mode == "incremental":
            ending.append(RunEvent(events.OUTPUT_ERROR, events.OutputFailed(outcome.error_type, outcome.safe_message)))
        failed = events.Failed(spec.name, outcome.error_type, outcome.retryable, outcome.safe_message)
        ending.append(RunEvent(events.FAILED, failed))
        if times.inference_began_s is not None:
            duration_ms = round(times.inference_s * 1000)
            inference = events.InferenceFailed(spec.name, spec.output_mode, outcome.error_type, duration_ms)
            ending.append(RunEvent(events.INFERENCE_FAILED, inference))
        ending.append(RunEvent(events.COMPUTE_COMPLETED, events.At(utc_now())))
        return
    if spec.output_mode == "incremental":
        ending.append(RunEvent(events.OUTPUT_COMPLETED, {}))
    inference_s = times.inference_s
    ending.append(RunEvent(events.INFERENCE_COMPLETED, events.InferenceCompleted(spec.name, spec.output_mode, round(inference_s * 1000))))
    ending.append(RunEvent(events.COMPUTE_COMPLETED, events.At(utc_now())))
    try:
        assert payload is not None
        assert ctx is not None
        ending += run_metrics(spec.name, payload, uses, inference_s, ctx.upload_s, ctx.usage)
    except BaseException as exc:  # noqa: BLE001 - whatever cannot be measured, the run is completed
        broke("the metrics", exc)
    duration_ms = round((times.now_s - times.began_s) * 1000)
    ending.append(RunEvent(events.COMPLETED, events.Completed(spec.name, duration_ms)))
