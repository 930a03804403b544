"""The device that was chosen for one run, and how many runs each device has."""

from collections.abc import Callable

from gen_worker.residency.place import Place


class Seat:
    """The device chosen for a run, held until `release`. `device_name` is None when there is only one device."""

    def __init__(self, place: Place, function: str, device_name: str | None, on_release: Callable[["Seat"], None]) -> None:
        self.place = place
        self.function = function
        self.device_name = device_name
        self.names: list[str] = []  # cache names of its models
        self._on_release = on_release
        self._taken = True
        place.runs += 1
        place.headroom.expect(function)

    def begin_work(self) -> Callable[[], None]:
        """The function begins, with all its models. Call the returned function when the author's code has ended."""
        return self.place.begin_work(self.function)

    def release(self) -> None:
        if self._taken:
            self._taken = False
            self.place.runs -= 1
            self._on_release(self)
