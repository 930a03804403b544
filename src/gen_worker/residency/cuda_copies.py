"""Copies from page-locked memory to a GPU, each with an event that says when it has arrived.

By torch, a copy is some dozen steps of Python: a stream is made the current one and back, two tensors are cut, an event is made and
recorded. A function that runs beside a load stands still for all of them. By CUDA's driver itself it is three short calls. Where there is
no such driver (ROCm, or a torch of another kind), torch does it.

To give the interpreter's lock away for a call, and to wait for it afterwards, costs more than most calls take. So those that never wait
keep it. Those that put work into a queue give it away: where the queue is full they wait, for what may need the lock to get on.
"""

import ctypes
from functools import cache
from types import SimpleNamespace
from typing import Any, Protocol

_DISABLE_TIMING = 2  # CU_EVENT_DISABLE_TIMING
_SUCCESS, _NOT_READY = 0, 600  # CUDA_SUCCESS, CUDA_ERROR_NOT_READY
_HANDLE, _ADDRESS = ctypes.c_void_p, ctypes.c_uint64
# https://docs.nvidia.com/cuda/cuda-driver-api/
_SHORT_CALLS: dict[str, tuple[Any, ...]] = {
    "cuStreamGetCtx": (_HANDLE, ctypes.POINTER(_HANDLE)),
    "cuCtxSetCurrent": (_HANDLE,),
    "cuEventQuery": (_HANDLE,),
}
_CALLS: dict[str, tuple[Any, ...]] = {
    "cuMemcpyHtoDAsync_v2": (_ADDRESS, _HANDLE, ctypes.c_size_t, _HANDLE),
    "cuEventCreate": (ctypes.POINTER(_HANDLE), ctypes.c_uint),
    "cuEventRecord": (_HANDLE, _HANDLE),
    "cuEventSynchronize": (_HANDLE,),
}


class Pinned(Protocol):
    """Page-locked memory: as a tensor of bytes, and where it begins."""

    tensor: Any
    address: int


class Event(Protocol):
    """When a copy has arrived. After that it may be used for another one."""

    def query(self) -> bool: ...

    def synchronize(self) -> Any: ...


class Copies(Protocol):
    """Copies to one allocation, on one stream."""

    def copy(self, source: Pinned, start: int, at: int, size_bytes: int, event: Any = None) -> Event:
        """Bytes from `start` of the source to byte `at` of the target. The source stays as it is until then. `event`: one that is free."""
        ...


class Events:
    """Those of one device that wait for no copy. Safe from any thread. None is ever destroyed: that would take its context."""

    def __init__(self) -> None:
        self._free: list[Event] = []

    def take(self) -> Event | None:
        """One to use again, if there is one."""
        try:
            return self._free.pop()
        except IndexError:
            return None

    def give_back(self, event: Event) -> None:
        """Its copy has arrived."""
        self._free.append(event)


def copies_to(target: Any, stream: Any) -> Copies:
    """Copies to a tensor of bytes on a GPU, on a stream of torch's."""
    driver = _cuda_driver()
    return TorchCopies(target, stream) if driver is None else DriverCopies(driver, target.data_ptr(), stream.cuda_stream)


class TorchCopies:
    """By torch's own operations."""

    def __init__(self, target: Any, stream: Any) -> None:
        self._target = target
        self._stream = stream

    def copy(self, source: Pinned, start: int, at: int, size_bytes: int, event: Any = None) -> Event:
        import torch

        with torch.cuda.stream(self._stream):
            self._target[at : at + size_bytes].copy_(source.tensor[start : start + size_bytes], non_blocking=True)
            done: Event = event or torch.cuda.Event()
            self._stream.record_event(done)
        return done


class DriverCopies:
    """By CUDA's driver. The threads that use it, or wait for its events, make no other use of CUDA: its context becomes their own."""

    def __init__(self, driver: Any, target: int, stream: int) -> None:
        self._driver = driver
        self._target = target
        self._stream = _HANDLE(stream)
        self._context = _HANDLE()
        _check("cuStreamGetCtx", driver.cuStreamGetCtx(self._stream, ctypes.byref(self._context)))

    def copy(self, source: Pinned, start: int, at: int, size_bytes: int, event: Any = None) -> Event:
        driver = self._driver
        _check("cuCtxSetCurrent", driver.cuCtxSetCurrent(self._context))
        _check("cuMemcpyHtoDAsync", driver.cuMemcpyHtoDAsync_v2(self._target + at, source.address + start, size_bytes, self._stream))
        done: _DriverEvent = event or _DriverEvent(driver, self._context)
        _check("cuEventRecord", driver.cuEventRecord(done.handle, self._stream))
        return done


class _DriverEvent:
    """Made where its context is the current one; it stays for as long as the process."""

    def __init__(self, driver: Any, context: Any) -> None:
        self._driver = driver
        self._context = context
        self.handle = _HANDLE()
        _check("cuEventCreate", driver.cuEventCreate(ctypes.byref(self.handle), _DISABLE_TIMING))

    def query(self) -> bool:
        code: int = self._driver.cuEventQuery(self.handle)
        return code != _NOT_READY and _check("cuEventQuery", code)

    def synchronize(self) -> None:
        _check("cuCtxSetCurrent", self._driver.cuCtxSetCurrent(self._context))
        _check("cuEventSynchronize", self._driver.cuEventSynchronize(self.handle))


@cache
def _cuda_driver() -> Any:
    """NVIDIA's driver; None where there is none, or torch computes on another maker's GPUs."""
    import torch

    if torch.version.cuda is None:
        return None
    try:
        return driver_of("libcuda.so.1")
    except (OSError, AttributeError):  # not Linux, or a driver without one of these calls
        return None


def driver_of(library: str) -> Any:
    """The calls of a shared library that is CUDA's driver. `OSError` and `AttributeError` when it is not."""
    driver = SimpleNamespace()
    for load, calls in ((ctypes.PyDLL, _SHORT_CALLS), (ctypes.CDLL, _CALLS)):
        loaded = load(library)
        for name, arguments in calls.items():
            call = getattr(loaded, name)
            call.argtypes = arguments
            setattr(driver, name, call)
    return driver


def _check(call: str, code: int) -> bool:
    if code != _SUCCESS:
        raise RuntimeError(f"CUDA's {call} failed with error {code}")
    return True
