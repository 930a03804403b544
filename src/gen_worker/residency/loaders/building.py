"""Builds modules without memory and without initialising them, while functions run."""

import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gen_worker.authoring.building import BUILDING

SLICE_S = 0.0002  # time between two checks whether functions run
READ_SLICE_S = 0.002
GIVEN_UP_S = 0.00005
# Time given to running functions. A function that launches kernels releases the lock after each one and gets it back
# only when no other thread has taken it, so it stands still for a whole slice. That is why it is given far more time
# than it loses.
GIVEN_TO_WORK_S = 0.002

INITIALISERS = (
    "uniform_", "normal_", "constant_", "ones_", "zeros_", "eye_", "dirac_", "xavier_uniform_", "xavier_normal_", "kaiming_uniform_",
    "kaiming_normal_", "trunc_normal_", "orthogonal_", "sparse_",
)  # fmt: skip


class Pace:
    """Yields the interpreter's lock after each short slice of work, to running functions and to the threads that read
    the weights.

    Python takes the lock from a thread only every 5 ms. A load made of thousands of small steps would take every second
    5 ms of a function's time. Each reader would also wait up to 5 ms between two pieces: a first load then took as long
    as its bytes, its module and half of its bytes again.
    """

    def __init__(self, working: Callable[[], int]) -> None:
        self._working = working
        self._began_s = self._gave_s = time.perf_counter()

    def step(self) -> None:
        """Call between two small pieces of work."""
        now_s = time.perf_counter()
        if now_s - self._began_s > SLICE_S:
            works = self._working()
            if works or now_s - self._gave_s > READ_SLICE_S:
                time.sleep(GIVEN_TO_WORK_S if works else GIVEN_UP_S)  # after sleep(0) this thread might take the lock right back
                now_s = self._gave_s = time.perf_counter()
            self._began_s = now_s


@contextmanager
def parameters_on_meta(torch: Any, pace: Pace | None = None) -> Iterator[None]:
    """In this thread, new modules get parameters on the meta device, and nothing initialises them. Buffers are computed
    as usual.

    The garbage collector is off until the module is built: otherwise thousands of new objects would make it scan all
    others again and again.
    """
    thread = threading.get_ident()
    module, init = torch.nn.Module, torch.nn.init

    def register(self: Any, name: str, param: Any) -> None:
        register_parameter(self, name, param)
        if param is not None and threading.get_ident() == thread:
            if not param.is_meta:
                self._parameters[name] = torch.nn.Parameter(param.to("meta"), requires_grad=False)
            if pace is not None:
                pace.step()

    def unless_on_meta(initialise: Callable[..., Any]) -> Callable[..., Any]:
        def skip(tensor: Any, *args: Any, **kwargs: Any) -> Any:
            return tensor if tensor.is_meta and threading.get_ident() == thread else initialise(tensor, *args, **kwargs)

        return skip

    with BUILDING:
        register_parameter = module.register_parameter
        initialisers = {name: getattr(init, name) for name in INITIALISERS}
        collects = gc.isenabled()
        module.register_parameter = register
        for name, initialise in initialisers.items():
            setattr(init, name, unless_on_meta(initialise))
        gc.disable()
        try:
            yield
        finally:
            if collects:
                gc.enable()
            for name, initialise in initialisers.items():
                setattr(init, name, initialise)
            module.register_parameter = register_parameter
