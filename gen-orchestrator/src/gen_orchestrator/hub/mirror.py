"""Mirrors models from Hugging Face, downloaded once for all workers. A request for a missing model starts its download;
the client repeats the request.

    requested ---> waiting ---> fetching ---> a version of `hf/<org>--<name>`, from then on found like any other
                                fetching ---> failed: keeps the reason for a while; a request after that tries again

A worker chooses the files of a repository by the precisions that it can use, and so does the mirror: a job is one ref
for one list of precisions. The files are downloaded to a separate cache beside the store, and are linked from there,
not copied. A mirror of a branch stays at its first version; after `cozyctl models rm hf/ORG--NAME` it is fetched again.
"""

import hashlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import msgspec

from gen_orchestrator.hub.model_records import SHARED_OWNER
from gen_orchestrator.hub.models import ModelStore
from gen_worker.content.progress import Progress
from gen_worker.log import Log
from gen_worker.net.range_client import RangeClient
from gen_worker.net.wanted import Policy
from gen_worker.refs import CozyRef, HuggingFaceRef, ModelSpec
from gen_worker.settings import ModelSettings
from gen_worker.sources.hf import HfSource
from gen_worker.sources.source import LocalModel, ModelWant

OWNER = SHARED_OWNER
AT_ONCE = 2
MAX_JOBS = 64
DONE_S = 5.0  # a finished job is reported for this long to callers who looked just before its end
FAILED_S = 60.0  # a failure is remembered this long; workers go to Hugging Face themselves meanwhile
MAX_WHY = 500


class MirrorBusyError(Exception):
    """Too many models are waiting to be fetched."""


class ModelFetcher(Protocol):
    """Fetches a model into a cache, and removes it from there again."""

    def fetch(self, want: ModelWant, progress: Progress, cancel: threading.Event) -> LocalModel: ...

    def forget(self, snapshot: Path) -> int: ...


def open_mirror(settings: ModelSettings | None, store: ModelStore, folder: Path, log: Log) -> "Mirror | None":
    """A mirror with the account and endpoint of these settings. Its caches are below `folder`, which must be on the
    store's disk because files are linked from there.
    """
    if settings is None:
        return None
    own = msgspec.structs.replace(settings, tensorhub_cache_dir=str(folder), hf_hub_cache=str(folder / "hub"), huggingface_hub_cache="")
    return Mirror(store, HfSource(own, RangeClient(), Policy()), log)


def mirrored(ref: HuggingFaceRef) -> CozyRef:
    """Where a model of Hugging Face is stored here: `hf/<org>--<name>`, with a branch or commit as the tag."""
    return CozyRef(OWNER, ref.repo_id.replace("/", "--"), (ref.revision or "latest").replace("/", "--"))


class Job:
    """One model that is being fetched, or was fetched."""

    def __init__(self, ref: HuggingFaceRef, precisions: tuple[str, ...]) -> None:
        self.ref = ref
        self.precisions = precisions
        name = f"{ref.canonical()}\n{','.join(precisions)}"
        self.id = f"ingest-{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}"
        self.progress = Progress(ref.canonical())
        self.digest = ""  # of the resulting version
        self.error = ""
        self.ended_s = 0.0


class Mirror:
    """One for each platform. `ask` may be called from any thread; fetching runs in threads of its own until `stop`."""

    def __init__(self, store: ModelStore, source: ModelFetcher, log: Log, now_s: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._source = source
        self._log = log
        self._now_s = now_s
        self._lock = threading.Lock()
        self._jobs: dict[str, Job] = {}
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="mirror")
        self._cancel = threading.Event()

    def ask(self, ref: HuggingFaceRef, precisions: tuple[str, ...]) -> Job:
        """The job of a model that is not here: running, done (`digest`), or failed (`error`). `ValueError` for invalid
        precisions, `MirrorBusyError` when too many wait.
        """
        job = Job(ref, precisions)
        spec = ModelSpec.checked(ref.canonical(), precisions) if precisions else ModelSpec.checked(ref.canonical())
        with self._lock:
            found = self._jobs.get(job.id)
            if found is not None and not self._is_over(found):
                return found
            self._jobs = {name: each for name, each in self._jobs.items() if not self._is_over(each)}
            if len(self._jobs) >= MAX_JOBS:
                raise MirrorBusyError(f"{len(self._jobs)} models are being fetched from Hugging Face; at most {MAX_JOBS}")
            self._jobs[job.id] = job
            self._threads.submit(self._fetch, job, spec)
        return job

    def stop(self) -> None:
        """Abort running jobs; the parts fetched so far are used next time. Blocking."""
        self._cancel.set()
        self._threads.shutdown(cancel_futures=True)

    def _is_over(self, job: Job) -> bool:
        """Whether a finished job was reported: after success its model may have been deleted since, after a failure it
        may be tried again.
        """
        return bool(job.ended_s) and self._now_s() - job.ended_s > (FAILED_S if job.error else DONE_S)

    def _fetch(self, job: Job, spec: ModelSpec) -> None:
        name = job.ref.canonical()
        self._log.info("mirror.began", ref=name, job=job.id)
        began_s = self._now_s()
        try:
            local = self._source.fetch(ModelWant("mirror", spec), job.progress, self._cancel)
            files = [self._store.adopt(local.path / path, path) for path in sorted(local.digests)]
            place = mirrored(job.ref)
            message = f"{name} at {local.version}"
            version = self._store.commit(place.owner, place.repo, place.tag, files, message=message, asked=job.precisions)
            self._source.forget(local.path)
        except Exception as exc:  # noqa: BLE001 - the boundary of the thread: whoever waits for the job hears of it
            job.error = str(exc)[:MAX_WHY] or type(exc).__name__
            self._log.warning("mirror.failed", ref=name, error=job.error)
        else:
            job.digest = version.digest
            self._log.info("mirror.done", ref=name, digest=version.digest, size_bytes=version.size_bytes, seconds=self._now_s() - began_s)
        job.ended_s = self._now_s()
