"""Modules made without memory and without initialisation, while functions run beside it."""

import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gen_worker.authoring.building import BUILDING

SLICE_S = 0.0002  # between two looks at whether functions run
READ_SLICE_S = 0.002
GIVEN_UP_S = 0.00005
# To functions. One that runs kernels gives the lock away after each, and gets it back only when nobody else has taken it: it stands still
# for a whole slice. So it gets far more time than it loses.
GIVEN_TO_WORK_S = 0.002

INITIALISERS = (
    "uniform_", "normal_", "constant_", "ones_", "zeros_", "eye_", "dirac_", "xavier_uniform_", "xavier_normal_", "kaiming_uniform_",
    "kaiming_normal_", "trunc_normal_", "orthogonal_", "sparse_",
)  # fmt: skip


class Pace:
    """Gives the interpreter's lock away after each short slice of work: to functions that run, and to the threads that read the weights.

    Python takes the lock from a thread only every 5 ms. A load of thousands of small steps would take every second 5 ms of a function's
    time, and each reader would stand still for up to 5 ms between two pieces: a first load took as long as its bytes, its module and half
    of its bytes again.
    """

    def __init__(self, working: Callable[[], int]) -> None:
        self._working = working
        self._began_s = self._gave_s = time.perf_counter()

    def step(self) -> None:
        """Between two small pieces of work."""
        now_s = time.perf_counter()
        if now_s - self._began_s > SLICE_S:
            works = self._working()
            if works or now_s - self._gave_s > READ_SLICE_S:
                time.sleep(GIVEN_TO_WORK_S if works else GIVEN_UP_S)  # of 0 seconds the lock might come back to this thread at once
                now_s = self._gave_s = time.perf_counter()
            self._began_s = now_s


@contextmanager
def parameters_on_meta(torch: Any, pace: Pace | None = None) -> Iterator[None]:
    """In this thread, modules made here get parameters without memory, and nothing initialises them; buffers are computed as ever.

    The garbage collector waits until the module is made: thousands of new objects would have it look at all others again and again.
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
