"""Embeddings: vectors as numbers, or as base64 of little-endian float32, which the official clients request."""

import base64
import sys
from array import array
from typing import Any

import msgspec

from gen_worker.front_doors.catalog import Catalog, find_for
from gen_worker.front_doors.openai.parameters import Parameters, read_object, refused
from gen_worker.front_doors.openai.usage import usage_of
from gen_worker.front_doors.runs import ProblemError, Runs
from gen_worker.http.asgi import Request
from gen_worker.http.problems import problem


class EmbeddingsDoor:
    """Handler of `/v1/embeddings`."""

    def __init__(self, catalog: Catalog, runs: Runs) -> None:
        self._catalog = catalog
        self._runs = runs

    async def create(self, request: Request) -> None:
        """`POST /v1/embeddings`."""
        asked = Parameters(await read_object(request))
        model, form = asked.text("model"), asked.choice("encoding_format", "float", "base64")
        target = find_for(self._catalog, request, model, "embeddings")
        texts = _texts(asked.take("input"))
        async with self._runs.start(request, target, asked.payload(target, input=texts)) as run:
            done = await run.finish()
        vectors = done.output["embeddings"]
        if len(vectors) != len(texts):
            detail = f"function {target.name!r} gave {len(vectors)} vectors for {len(texts)} texts; expected one for each, in order"
            raise ProblemError(problem(500, "internal", detail))
        shown = [vector if form == "float" else _base64(vector) for vector in vectors]
        data = [{"object": "embedding", "index": index, "embedding": each} for index, each in enumerate(shown)]
        usage = usage_of(done)
        tokens = {"prompt_tokens": usage["prompt_tokens"], "total_tokens": usage["total_tokens"]}
        body = {"object": "list", "data": data, "model": model, "usage": tokens}
        await request.answer(200, msgspec.json.encode(body), headers={"x-request-id": run.id})


def _texts(value: Any) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise refused("input", "missing" if value is None else "expected a text or a list of texts (no tokens)")
    return texts


def _base64(vector: list[float]) -> str:
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()
