"""The context of one run: who asked for it, how long it may take, whether it was cancelled, and ways to report and save."""

import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from gen_worker import events
from gen_worker.authoring import invoking
from gen_worker.authoring.assets import Asset
from gen_worker.log import Log
from gen_worker.texts import repr_of

if TYPE_CHECKING:
    import torch

MAX_EVENT_TYPE = 200  # characters
_COUNTING = threading.Lock()  # one lock for all contexts, because it is held only briefly
Emitter = Callable[[dict[str, Any]], None]
T = TypeVar("T")


class OutputStore(Protocol):
    """Where saved files go. `create` refuses to replace a file."""

    def save_bytes(self, ref: str, data: bytes, *, create: bool) -> Asset: ...

    def save_file(self, ref: str, path: Path, *, create: bool) -> Asset: ...


class ActionContext:
    """The first argument of every function. There is one for each run; any thread may use it.

    The worker builds it. A test may build one from just a run id, and pass an `emitter` that collects what the function
    reports: it is called with `{"run_id", "type", "payload", "timestamp"}`, the timestamp in unix seconds.

    `owner`, `invoker_id`: whose run it is, and who asked for it. `timeout_ms`: milliseconds until the run's time is
    over, counted from now; None or 0: no limit. `outputs`: stores saved files; otherwise they go into the folder
    `local_output_dir`, and without either, saving raises `RuntimeError`. `required_models`: refs that this run needs.
    `resolved_cozy_models_by_id`: a scheduler's file lists of models, by canonical ref. `device`: `cuda:0` or `cpu`;
    detected by default. `traceparent`: W3C Trace Context. `attempt`: counts from 1. `children`: runs the functions that
    this one calls. `file_api_base_url`, `file_api_token`, `materialized_input_urls`: accepted for code written for
    older versions; ignored.
    """

    def __init__(
        self,
        run_id: str,
        emitter: Emitter | None = None,
        owner: str | None = None,
        invoker_id: str | None = None,
        timeout_ms: int | None = None,
        file_api_base_url: str | None = None,
        file_api_token: str | None = None,
        materialized_input_urls: Mapping[str, str] | None = None,
        local_output_dir: str | None = None,
        resolved_cozy_models_by_id: Mapping[str, Any] | None = None,
        required_models: Sequence[str] | None = None,
        *,
        outputs: OutputStore | None = None,
        device: str | None = None,
        traceparent: str | None = None,
        attempt: int = 1,
        children: invoking.Children | None = None,
    ) -> None:
        self.run_id = run_id
        self.owner = owner
        self.invoker_id = invoker_id
        self.timeout_ms = timeout_ms
        self.attempt = attempt  # starts at 1 and grows each time the run is tried again
        self.traceparent = traceparent  # W3C Trace Context of the run, for the function's own spans
        self.resolved_cozy_models_by_id = resolved_cozy_models_by_id
        self.upload_s = 0.0
        self.usage: tuple[int, int] | None = None  # tokens read and written, as reported by `report_usage`
        self._emitter = emitter
        self._began_s = time.monotonic()
        self._began_unix_s = time.time()
        self._file_api = (file_api_base_url, file_api_token)
        self._input_urls = materialized_input_urls
        self._local_output_dir = local_output_dir
        self._required_models = required_models or ()
        self._outputs = outputs
        self._device = device
        self._canceled = False
        self._done: threading.Event | None = None
        self._children = children
        self._calls = 0

    @property
    def items(self) -> "tuple[ActionContext, ...]":
        """The contexts of the runs in this call: for a batch function those of its payloads, in order; otherwise this one alone."""
        return (self,)

    @property
    def required_models(self) -> list[str]:
        """Refs of the models pinned to this run (a copy)."""
        return list(self._required_models)

    @property
    def deadline(self) -> float | None:
        """When the run's time is over, in unix seconds; None without a time limit."""
        return None if not self.timeout_ms else self._began_unix_s + self.timeout_ms / 1000

    def time_remaining_s(self) -> float | None:
        """Seconds left, never negative, by the monotonic clock; None without a time limit."""
        if not self.timeout_ms:
            return None
        return max(0.0, self._began_s + self.timeout_ms / 1000 - time.monotonic())

    @property
    def device(self) -> "torch.device":
        """Where tensors of this run belong: WORKER_TORCH_DEVICE or WORKER_DEVICE, else the current CUDA device, else the CPU."""
        try:
            import torch
        except ImportError as exc:
            raise RuntimeError("ctx.device needs torch, which is not installed. Add it with: pip install 'gen-worker[torch]'") from exc
        if self._device:
            return torch.device(self._device)
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("cpu")

    def is_canceled(self) -> bool:
        """Whether the run should stop. Check it often during long work."""
        return self._canceled

    def cancel(self) -> None:
        """Ask the run to stop."""
        self._canceled = True
        if self._done is not None:
            self._done.set()

    def done(self) -> threading.Event:
        """An event that is set when the run is cancelled; wait on it instead of sleeping."""
        if self._done is None:  # created on first use: most functions never wait on it
            self._done = threading.Event()
        if self._canceled:
            self._done.set()
        return self._done

    def emit(self, event_type: str, payload: Mapping[str, Any] | None = None) -> None:
        """Send an event of your own. `event_type` is a text of at most 200 characters, `payload` a mapping that encodes
        to a JSON object of at most 1 MiB. Best effort: an event that cannot be sent is dropped and logged, and your
        code gets no exception.
        """
        if self._emitter is None:
            return
        now = time.time()
        try:
            # Checked here, because the traceback still shows the author's line. Later code sends the scheduler whatever it gets.
            if not isinstance(event_type, str) or not event_type or len(event_type) > MAX_EVENT_TYPE:
                raise TypeError(
                    f"the event's type is {repr_of(event_type, MAX_EVENT_TYPE)}; expected a text of 1 to {MAX_EVENT_TYPE} characters"
                )
            body = {**(payload or {}), "timestamp": now}
            self._emitter({"run_id": self.run_id, "type": str.__str__(event_type), "payload": body, "timestamp": now})
        except Exception as exc:  # noqa: BLE001 - reporting must not break the work that it reports on
            Log().warning(
                "run.event_lost", run_id=self.run_id, event_type=repr_of(event_type, MAX_EVENT_TYPE), error=repr_of(exc, MAX_EVENT_TYPE)
            )

    def progress(self, progress: float, stage: str | None = None) -> None:
        """Report the run's progress, from 0 to 1, and optionally its current stage."""
        self.emit(events.PROGRESS, {"progress": progress} if stage is None else {"progress": progress, "stage": stage})

    def log(self, message: str, level: str = "info") -> None:
        """Send a log line to everyone who watches this run."""
        self.emit(events.LOG, {"message": message, "level": level})

    def report_usage(self, *, input_tokens: int = 0, output_tokens: int = 0) -> None:
        """Count tokens that this run has read and written. Several calls add up. The run shows the sums as `usage`, and
        so do the OpenAI routes. `ValueError` for a negative number, `TypeError` for anything but an integer.
        """
        counts = index(input_tokens), index(output_tokens)
        if min(counts) < 0:
            raise ValueError(f"report_usage(input_tokens={counts[0]}, output_tokens={counts[1]}); expected numbers of tokens, from 0 up")
        with _COUNTING:
            before = self.usage or (0, 0)
            self.usage = before[0] + counts[0], before[1] + counts[1]

    @overload
    async def invoke(self, ref: str, payload: Any, output: type[T]) -> T: ...
    @overload
    async def invoke(self, ref: str, payload: Any, output: None = None) -> Any: ...
    async def invoke(self, ref: str, payload: Any, output: Any = None) -> Any:
        """Run another function and wait for its output.

        `ref`: a function of the same project (`draw`), or any as `owner/endpoint/function[:tag]`. `payload`: its
        Struct, or a dict. `output`: the type of the result; by default dicts and lists as in JSON. For a stream the
        result is the list of its items. Raises what the function raised (`ValidationError`, `RetryableError` and so
        on); `WorkerError` for an exception that is not one of our classes.
        """
        return await invoking.answer(self._called(), self._call(ref, payload), output)

    @overload
    def invoke_sync(self, ref: str, payload: Any, output: type[T]) -> T: ...
    @overload
    def invoke_sync(self, ref: str, payload: Any, output: None = None) -> Any: ...
    def invoke_sync(self, ref: str, payload: Any, output: Any = None) -> Any:
        """Like `invoke`, in a function that is not async."""
        return invoking.answer_sync(self._called(), self._call(ref, payload), output)

    @overload
    def stream(self, ref: str, payload: Any, output: type[T]) -> AsyncIterator[T]: ...
    @overload
    def stream(self, ref: str, payload: Any, output: None = None) -> AsyncIterator[Any]: ...
    def stream(self, ref: str, payload: Any, output: Any = None) -> AsyncIterator[Any]:
        """Run another function and iterate over the items of its stream as they arrive. `output`: the type of an item.
        Breaking out of the loop cancels the other run.
        """
        return invoking.stream(self._called(), self._call(ref, payload), output)

    @overload
    def stream_sync(self, ref: str, payload: Any, output: type[T]) -> Iterator[T]: ...
    @overload
    def stream_sync(self, ref: str, payload: Any, output: None = None) -> Iterator[Any]: ...
    def stream_sync(self, ref: str, payload: Any, output: Any = None) -> Iterator[Any]:
        """Like `stream`, in a function that is not async."""
        return invoking.stream_sync(self._called(), self._call(ref, payload), output)

    def _called(self) -> invoking.Children:
        if self._children is None:
            raise RuntimeError(
                "this context can call no functions: it was built by hand; give it `children` (gen_worker.testing.called.Called)"
            )
        return self._children

    def _call(self, ref: str, payload: Any) -> invoking.ChildCall:
        with _COUNTING:
            self._calls += 1
            number = self._calls
        return invoking.child_call(number, ref, payload, self.time_remaining_s())

    def save_bytes(self, ref: str, data: bytes) -> Asset:
        """Save a file under `ref`, by convention `runs/<run_id>/outputs/...`; replaces an existing file."""
        return self._save_bytes(ref, data, create=False)

    def save_bytes_create(self, ref: str, data: bytes) -> Asset:
        """Save a file; `RuntimeError` when it already exists."""
        return self._save_bytes(ref, data, create=True)

    def save_bytes_overwrite(self, ref: str, data: bytes) -> Asset:
        """The same as `save_bytes`."""
        return self._save_bytes(ref, data, create=False)

    def save_file(self, ref: str, local_path: str | Path) -> Asset:
        """Save a copy of a local file under `ref`; replaces an existing file."""
        return self._save_file(ref, local_path, create=False)

    def save_file_create(self, ref: str, local_path: str | Path) -> Asset:
        """Save a copy of a local file; `RuntimeError` when the ref already exists."""
        return self._save_file(ref, local_path, create=True)

    def save_file_overwrite(self, ref: str, local_path: str | Path) -> Asset:
        """The same as `save_file`."""
        return self._save_file(ref, local_path, create=False)

    def _save_bytes(self, ref: str, data: bytes, *, create: bool) -> Asset:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"save_bytes takes bytes, got {type(data).__name__}; encode it first")
        return self._timed(lambda store: store.save_bytes(ref, bytes(data), create=create))

    def _save_file(self, ref: str, local_path: str | Path, *, create: bool) -> Asset:
        return self._timed(lambda store: store.save_file(ref, Path(local_path), create=create))

    def _timed(self, save: Callable[[OutputStore], Asset]) -> Asset:
        if self._outputs is None:
            self._outputs = self._default_store()
        began_s = time.perf_counter()
        try:
            return save(self._outputs)
        finally:
            self.upload_s += time.perf_counter() - began_s

    def _default_store(self) -> OutputStore:
        if self._local_output_dir is None:
            raise RuntimeError("no place to save files: set FILE_API_BASE_URL and FILE_API_TOKEN, or give the context a local_output_dir")
        # Imported here: only a context built by hand, for example in a test, creates its own store.
        from gen_worker.files.local_outputs import LocalOutputs

        return LocalOutputs(Path(self._local_output_dir))
