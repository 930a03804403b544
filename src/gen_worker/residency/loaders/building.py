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
# Beside functions. One that runs kernels gives the lock away after each, and gets it back only when nobody else has taken it: it stands
# still for a whole slice, and its processor has to wake up after it. So slices are few. Beside steps of SDXL on an H200, 0.2 ms of each
# 2.2 ms made them 1.19 times as long, 1 ms of each 13 ms made them 1.07 times as long.
WORK_SLICE_S = 0.001
GIVEN_TO_WORK_S = 0.012

INITIALISERS = (
    "uniform_", "normal_", "constant_", "ones_", "zeros_", "eye_", "dirac_", "xavier_uniform_", "xavier_normal_", "kaiming_uniform_",
    "kaiming_normal_", "trunc_normal_", "orthogonal_", "sparse_",
)  # fmt: skip


class _Collector:
    """Switches Python's garbage collector off while any load asks for it. Safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked = 0
        self._was_on = False

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Off until the block ends. Otherwise thousands of new objects, which all stay, would make it scan all others again and again."""
        with self._lock:
            if not self._asked:
                self._was_on = gc.isenabled()
                gc.disable()
            self._asked += 1
        try:
            yield
        finally:
            with self._lock:
                self._asked -= 1
                if not self._asked and self._was_on:
                    gc.enable()


COLLECTOR = _Collector()


class Pace:
    """Yields the interpreter's lock after each short slice of work, to running functions and to the threads that read
    the weights.

    During a load, Python takes the lock from a thread only every 5 ms (`interpreter`). A load made of thousands of small
    steps would take every second 5 ms of a function's time. Each reader would also wait up to 5 ms between two pieces: a
    first load then took as long as its bytes, its module and half of its bytes again.
    """

    def __init__(self, working: Callable[[], int]) -> None:
        self._working = working
        self._began_s = self._gave_s = time.perf_counter()

    def step(self) -> None:
        """Call between two small pieces of work."""
        now_s = time.perf_counter()
        if now_s - self._began_s > SLICE_S:
            works = self._working()
            if now_s - self._gave_s > (WORK_SLICE_S if works else READ_SLICE_S):
                time.sleep(GIVEN_TO_WORK_S if works else GIVEN_UP_S)  # after sleep(0) this thread might take the lock right back
                now_s = self._gave_s = time.perf_counter()
            self._began_s = now_s


@contextmanager
def parameters_on_meta(torch: Any, pace: Pace | None = None) -> Iterator[None]:
    """In this thread, new modules get parameters on the meta device, and nothing initialises them. Buffers are computed
    as usual. The garbage collector is off until the module is built.
    """
    thread = threading.get_ident()
    module, init = torch.nn.Module, torch.nn.init

    empty: dict[tuple[Any, Any], Any] = {}

    def empty_like(param: Any) -> Any:
        """A meta tensor. Creating one releases the lock, so parameters of one shape share one."""
        key = (param.shape, param.dtype)
        found = empty.get(key)
        if found is None:
            found = empty[key] = param.to("meta")
        return found

    def register(self: Any, name: str, param: Any) -> None:
        register_parameter(self, name, param)
        if param is not None and threading.get_ident() == thread:
            if not param.is_meta:
                self._parameters[name] = torch.nn.Parameter(empty_like(param), requires_grad=False)
            if pace is not None:
                pace.step()

    def unless_on_meta(initialise: Callable[..., Any]) -> Callable[..., Any]:
        def skip(tensor: Any, *args: Any, **kwargs: Any) -> Any:
            return tensor if tensor.is_meta and threading.get_ident() == thread else initialise(tensor, *args, **kwargs)

        return skip

    with BUILDING, COLLECTOR.stopped():
        register_parameter = module.register_parameter
        initialisers = {name: getattr(init, name) for name in INITIALISERS}
        module.register_parameter = register
        for name, initialise in initialisers.items():
            setattr(init, name, unless_on_meta(initialise))
        try:
            yield
        finally:
            for name, initialise in initialisers.items():
                setattr(init, name, initialise)
            module.register_parameter = register_parameter
