"""Renews a model's download URLs for workers whose URLs have expired, on the worker's stream.

    UrlRefreshRequest        (our workers)        -> UrlRefreshResponse
    event model.url_refresh  (published workers)  -> the release's configuration again, with the files of that model

A published worker fetches models only by the URLs in that configuration, so it also gets them when it joins. A model
that cannot be resolved gets no answer: the worker then reports that no new URLs came.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

import msgspec

from gen_orchestrator.scheduling.plain_workers import is_plain
from gen_orchestrator.scheduling.pool import Worker
from gen_worker.log import Log
from gen_worker.wire.messages import ReleaseConfig, ResolvedModel, UrlRefreshResponse

URL_REFRESH = "model.url_refresh"


class Addresses(Protocol):
    """Resolves models of releases. Blocking; any thread."""

    def resolve(self, release_id: str, model_id: str) -> ResolvedModel | None:
        """The files of a model named by the release; None for others, and for models that are not here."""
        ...

    def all_of(self, release_id: str) -> dict[str, ResolvedModel]:
        """The models of a release that are here, by ref."""
        ...


class _Asked(msgspec.Struct):
    model_id: str = ""


class UrlRenewals:
    """One for each leader. A worker has at most one request for a model in progress."""

    def __init__(self, addresses: Addresses | None, config_of: Callable[[str], ReleaseConfig | None], log: Log) -> None:
        self._addresses = addresses
        self._config_of = config_of
        self._log = log
        self._under_way: dict[tuple[str, str], asyncio.Task[None]] = {}

    def ask(self, worker: Worker, model_id: str) -> None:
        """A worker needs fresh URLs of a model."""
        key = (worker.worker_id, model_id)
        if self._addresses is not None and key not in self._under_way:
            task = self._under_way[key] = asyncio.create_task(self._renew(worker, model_id, self._addresses), name=f"renew-{model_id}")
            task.add_done_callback(lambda _: self._under_way.pop(key, None))

    def ask_in_words(self, worker: Worker, payload: bytes) -> None:
        """The same, requested by an event. Our workers send both, and mean the request."""
        if is_plain(worker):
            try:
                self.ask(worker, msgspec.json.decode(payload, type=_Asked).model_id)
            except msgspec.DecodeError:
                return

    def with_addresses(self, worker: Worker, config: ReleaseConfig) -> ReleaseConfig:
        """The configuration for a joining worker. (For a plain worker this reads a few small files, because its first
        run must not come before.)
        """
        if self._addresses is None or not is_plain(worker):
            return config
        return msgspec.structs.replace(config, resolved_models=self._addresses.all_of(worker.release_id))

    def stop(self) -> None:
        """This program no longer leads."""
        for task in self._under_way.values():
            task.cancel()

    async def _renew(self, worker: Worker, model_id: str, addresses: Addresses) -> None:
        try:
            resolved = await asyncio.to_thread(addresses.resolve, worker.release_id, model_id)
        except (OSError, ValueError) as exc:
            self._log.warning("model.not_resolved", worker_id=worker.worker_id, model_id=model_id, error=str(exc))
            return
        if resolved is None:
            self._log.warning("model.no_addresses", worker_id=worker.worker_id, model_id=model_id, release_id=worker.release_id)
            return
        if worker.link is None:
            return
        config = self._config_of(worker.release_id) if is_plain(worker) else None
        if config is None:
            worker.link.send(UrlRefreshResponse(model_id, resolved))
        else:
            worker.link.send(msgspec.structs.replace(config, resolved_models={model_id: resolved}))
        self._log.info("model.addresses_renewed", worker_id=worker.worker_id, model_id=model_id, files=len(resolved.files))
