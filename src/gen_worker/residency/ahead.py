"""Loads the model that is likely to be needed next while a device is idle. Stops for every run. Lives on one event loop."""

import asyncio
import time
from collections.abc import Callable, Sequence

from gen_worker.errors import WorkerError
from gen_worker.log import Log
from gen_worker.residency.foresight import Foresight, Tally, is_worth_it
from gen_worker.residency.forms import model_of
from gen_worker.residency.loaders.base import Loader, LoadRequest
from gen_worker.residency.place import Place, form_of

IDLE_S = 0.05  # how long a device must have no runs before loading ahead starts


class Ahead:
    """Only models that were loaded here before and were evicted are loaded ahead. `name` is a model's name in the
    cache, without its device.
    """

    def __init__(self, places: Sequence[Place], loaders: Sequence[Loader], log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        self.tally = Tally()
        self._places = places
        self._foresight = Foresight()
        self._loaders = loaders
        self._log = log
        self._clock = clock
        self._known: dict[str, LoadRequest] = {}
        self._task: asyncio.Task[None] | None = None
        self._loading = ""
        self._joined = False  # whether a run needs the model that is being loaded ahead

    @property
    def is_busy(self) -> bool:
        """Whether it is choosing or loading."""
        return self._task is not None

    def run_wants(self, name: str, request: LoadRequest, *, is_hot: bool) -> None:
        """A run is about to take a model. Loading ahead stops, unless it is loading this very model."""
        self._known[name] = request
        if self._loading == name:
            self._joined = True
            return
        if is_hot:
            self.tally.used(name, self._clock())
        else:
            self.tally.gone(name)
        self.stop()

    def run_ended(self, place: Place, name: str) -> None:
        """A run with this model has left the device."""
        self._foresight.used(name)
        self.tally.forgive()
        if self._task is None and self.tally.pays and not place.runs:
            self._task = asyncio.ensure_future(self._look_ahead(place))
            self._task.add_done_callback(self._ended)

    def forget(self, model_id: str) -> None:
        """Someone unloaded this model on purpose: do not load it ahead until a run uses it again."""
        self._known = {name: request for name, request in self._known.items() if request.model_id != model_id}
        if model_of(self._loading) == model_id:
            self.stop()

    def stop(self) -> None:
        """Stop loading ahead, for now."""
        if self._task is not None:
            self._task.cancel()

    async def _look_ahead(self, place: Place) -> None:
        await asyncio.sleep(IDLE_S)
        for foreseen in self._foresight.next():
            request = self._known.get(foreseen.name)
            if request is None or place.runs or place.on_their_way() or any(other.is_here(foreseen.name) for other in self._places):
                continue
            offer = place.offer([form_of(foreseen.name)])
            if not is_worth_it(foreseen.probability, offer.missing_s, offer.harm_s):
                continue
            self._loading, self._joined = foreseen.name, False
            lease = await place.lease(foreseen.name, request, self._loaders, None)
            lease.release()
            size_bytes = place.size_bytes(foreseen.name)
            self.tally.loaded(foreseen.name, size_bytes, self._clock())
            if self._joined:
                self.tally.used(foreseen.name, self._clock())
            self._log.info("model.loaded_ahead", model=request.model_id, size_bytes=size_bytes, probability=round(foreseen.probability, 2))
            return

    def _ended(self, task: "asyncio.Task[None]") -> None:
        name, self._task, self._loading = self._loading, None, ""
        error = None if task.cancelled() else task.exception()
        if error is not None:  # a run that needs the model will load it again and see the error
            self._known.pop(name, None)
            if not isinstance(error, WorkerError):
                self._log.error("model.ahead_failed", error=repr(error))
