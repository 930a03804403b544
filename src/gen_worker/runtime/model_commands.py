"""A scheduler's commands for one model: load it onto a device, or unload it. Each is answered once."""

import time
from collections.abc import Callable, Mapping
from functools import partial

import msgspec

from gen_worker.authoring.signature import FunctionSpec
from gen_worker.errors import FatalError, ResourceError, WorkerError
from gen_worker.names import did_you_mean
from gen_worker.outcome import outcome_of
from gen_worker.refs import ModelSpec, canonical_ref
from gen_worker.residency.manager import LoadedModels
from gen_worker.runtime.duties import Duties
from gen_worker.runtime.voice import Voice
from gen_worker.wire.messages import Event, LoadModelResult, UnloadModelResult


class ModelCommands:
    """A load is a task of the worker; `busy` counts these tasks. `refresh` sends a heartbeat, because the loaded models have changed."""

    def __init__(
        self, functions: Mapping[str, FunctionSpec], models: LoadedModels, voice: Voice, duties: Duties, refresh: Callable[[], None]
    ) -> None:
        self.busy = 0
        self._functions = functions
        self._models = models
        self._voice = voice
        self._duties = duties
        self._refresh = refresh

    def load(self, name: str) -> None:
        """Load a model onto its device in the background; the answer is a `LoadModelResult`."""
        self._duties.start(self._load(name), f"load {name}", partial(self.refuse_load, name))

    def refuse_load(self, name: str, error: Exception) -> None:
        """Answer for a load that failed unexpectedly."""
        model_id = self._model_id(name)
        self._say("model.load.failed", model_id=model_id, error_type="load_failed")
        self._voice.say(LoadModelResult(model_id, False, outcome_of(error).error_message))

    def refuse_unload(self, name: str, error: Exception) -> None:
        """Answer for an unload that failed unexpectedly."""
        model_id = self._model_id(name)
        self._say("model.unload.failed", model_id=model_id, error_type="unload_failed")
        self._voice.say(UnloadModelResult(model_id, False, outcome_of(error).error_message))

    def unload(self, name: str) -> None:
        """Unload at once; refused while a run uses the model."""
        model_id = self._model_id(name)
        began_s = time.monotonic()
        self._say("model.unload.started", model_id=model_id)
        try:
            self._models.unload(model_id)
        except ResourceError:
            self._say("model.unload.failed", model_id=model_id, reason="in_use", error_type="unload_failed", duration_ms=_ms(began_s))
            self._voice.say(UnloadModelResult(model_id, False, "model_in_use"))
            return
        self._say("model.unload.completed", model_id=model_id, duration_ms=_ms(began_s), error_type="")
        self._voice.say(UnloadModelResult(model_id, True))
        self._refresh()

    def _model_id(self, name: str) -> str:
        """The canonical ref of a model given by its key or ref; otherwise the name itself."""
        found = self._models.keyspace.find(name)
        return canonical_ref(found[1].ref if found is not None else name)

    async def _load(self, name: str) -> None:
        model_id = canonical_ref(name)
        began_s = time.monotonic()
        self._say("model.load.started", model_id=model_id)
        self.busy += 1
        try:
            key, spec = self._find(name)
            model_id = canonical_ref(spec.ref)
            takers = self._models.keyspace.takers(self._functions.values(), key)
            if not takers:
                raise FatalError(f"no function here takes the model {name!r}")
            for function, injection in takers:
                await self._models.load(key, spec, function, injection)
        except WorkerError as exc:
            text = f"insufficient_vram: {exc}" if isinstance(exc, ResourceError) else str(exc)
            self._say("model.load.failed", model_id=model_id, duration_ms=_ms(began_s), error_type="load_failed")
            self._voice.say(LoadModelResult(model_id, False, text))
        else:
            self._say("model.load.completed", model_id=model_id, duration_ms=_ms(began_s), error_type="")
            self._voice.say(LoadModelResult(model_id, True))
        finally:
            self.busy -= 1
        self._refresh()

    def _find(self, name: str) -> tuple[str, ModelSpec]:
        found = self._models.keyspace.find(name)
        if found is None:
            keys = sorted({key for key, _ in self._models.keyspace.refs().values()})
            raise FatalError(f"no model {name[:200]!r}.{did_you_mean(name, keys)} Declared keys: {', '.join(keys) or 'none'}")
        return found

    def _say(self, event_type: str, **payload: object) -> None:
        self._voice.say_event(Event("", event_type, msgspec.json.encode(payload)))


def _ms(began_s: float) -> int:
    return round((time.monotonic() - began_s) * 1000)
