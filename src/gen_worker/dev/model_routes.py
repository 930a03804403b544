"""Routes that prefetch, load and unload models."""

import time
from typing import Any

import msgspec

from gen_worker.dev.serving import Serving
from gen_worker.errors import WorkerError
from gen_worker.http.asgi import Request, RequestError
from gen_worker.names import did_you_mean
from gen_worker.refs import DEFAULT_DTYPES, ModelSpec, canonical_ref
from gen_worker.residency.manager import LoadedModels

MAX_BODY_BYTES = 1 << 20


class _PrefetchItem(msgspec.Struct):
    ref: str = ""
    model_ref: str = ""
    model_id: str = ""
    dtypes: list[str] = []
    file_type: str = ""

    @property
    def name(self) -> str:
        return self.ref or self.model_ref or self.model_id


class _Prefetch(msgspec.Struct):
    models: list[str | _PrefetchItem] = []


class _Named(msgspec.Struct):
    model_id: str = ""


class ModelRoutes:
    """Answers of `/v1/models/...`. A model is named by its key or by its ref."""

    def __init__(self, models: LoadedModels, serving: Serving) -> None:
        self._models = models
        self._serving = serving

    async def status(self, request: Request) -> None:
        progress = self._models.on_their_way()
        body = {"model_cache": self._models.cache.get_stats().to_dict(), "ok": True, "progress": progress}
        await request.answer(200, msgspec.json.encode(body, order="sorted"))

    async def prefetch(self, request: Request) -> None:
        wanted = await _read(request, _Prefetch)
        if not wanted.models:
            raise RequestError(400, "validation", 'expected {"models": ["<ref>", ...]}', error="missing_models")
        for number, item in enumerate(wanted.models):
            if not (item if isinstance(item, str) else item.name).strip():
                expected = f'models[{number}] is not a model; expected a ref, or {{"ref": "hf:owner/repo@main", "dtypes": ["bf16"]}}'
                raise RequestError(400, "validation", expected, error="missing_models")
        results = []
        for item in wanted.models:
            name = item if isinstance(item, str) else item.name
            dtypes = DEFAULT_DTYPES if isinstance(item, str) or not item.dtypes else tuple(item.dtypes)
            results.append(await self._prefetch_one(name, dtypes))
        await request.answer(200, msgspec.json.encode({"results": results}, order="sorted"))

    async def load(self, request: Request) -> None:
        name = await self._model_id(request)
        try:
            key, spec = self._find(name, DEFAULT_DTYPES)
            takers = self._models.keyspace.takers(self._serving.functions.values(), key)
            if not takers:
                raise RequestError(404, "not_found", f"no function here takes the model {name!r}", error="unknown_model")
            for function, injection in takers:
                await self._models.load(key, spec, function, injection)
        except WorkerError as exc:
            await _answer(request, False, str(exc))
        else:
            await _answer(request, True, "")

    async def unload(self, request: Request) -> None:
        name = await self._model_id(request)
        try:
            _, spec = self._find(name, DEFAULT_DTYPES)
            self._models.unload(canonical_ref(spec.ref))
        except WorkerError as exc:
            await _answer(request, False, str(exc))
        else:
            await _answer(request, True, "")

    async def _prefetch_one(self, name: str, dtypes: tuple[str, ...]) -> dict[str, Any]:
        began_s = time.monotonic()
        error_type = error_message = ""
        try:
            key, spec = self._find(name, dtypes)
            await self._models.prefetch(key, spec, functions=self._serving.functions.values())
        except WorkerError as exc:
            error_type, error_message = type(exc).__name__, str(exc)
        result: dict[str, Any] = {
            "duration_ms": round((time.monotonic() - began_s) * 1000),
            "model_id": canonical_ref(name),
            "ok": not error_type,
        }
        if error_type:
            result |= {"error_type": error_type, "error_message": error_message}
        return result

    def _find(self, name: str, dtypes: tuple[str, ...]) -> tuple[str, ModelSpec]:
        found = self._models.keyspace.find(name)
        if found is not None:
            return found
        try:
            return name, ModelSpec.checked(name, dtypes)
        except ValueError as exc:
            keys = sorted({key for key, _ in self._models.keyspace.refs().values()})
            known = ", ".join(keys) or "none"
            raise RequestError(
                404, "not_found", f"{exc}.{did_you_mean(name, keys)} Declared keys: {known}", error="unknown_model"
            ) from None

    async def _model_id(self, request: Request) -> str:
        named: _Named = await _read(request, _Named)
        name = named.model_id.strip()
        if not name:
            raise RequestError(400, "validation", 'expected {"model_id": "<key or ref>"}', error="missing_model_id")
        return name


async def _read(request: Request, kind: Any) -> Any:
    body = await request.body(MAX_BODY_BYTES)
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as exc:
        word = "missing_models" if kind is _Prefetch else "missing_model_id"
        raise RequestError(400, "validation", str(exc), error=word) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as exc:
        raise RequestError(400, "invalid_json", f"the body is not JSON: {exc}", error="invalid_json") from None


async def _answer(request: Request, ok: bool, message: str) -> None:
    await request.answer(200, msgspec.json.encode({"error_message": message, "ok": ok}))
