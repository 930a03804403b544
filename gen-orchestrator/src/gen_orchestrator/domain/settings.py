"""Settings of one function of a release, as scheduling uses them."""

import msgspec

from gen_orchestrator.domain.admission import MAX_QUEUED_OF_FUNCTION
from gen_orchestrator.domain.runs import MAX_ATTEMPTS


class FunctionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A function's settings from cozy.toml. `memo_s`: for how many seconds a run answers equal requests. `models`:
    canonical refs that every run needs. `models_by_key`: models that the payload chooses, by the payload's field
    `model_field`. `is_session`: it is a websocket handler, whose runs are realtime sessions.
    """

    timeout_s: float = 0.0
    start_timeout_s: float = 0.0
    max_attempts: int = MAX_ATTEMPTS
    queue_max: int = MAX_QUEUED_OF_FUNCTION
    durable: bool = True
    memo_s: int = 0
    models: tuple[str, ...] = ()
    models_by_key: dict[str, str] = {}
    model_fields: tuple[str, ...] = ()
    is_session: bool = False
