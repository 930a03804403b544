"""Images: as URLs, or inside the answer."""

import base64
import re
import time
from typing import Any

import msgspec

from gen_worker.front_doors.catalog import Catalog, find_for
from gen_worker.front_doors.files import Files, file_at, link
from gen_worker.front_doors.openai.parameters import Parameters, read_object, refused
from gen_worker.front_doors.openai.usage import usage_of
from gen_worker.front_doors.runs import ProblemError, Runs
from gen_worker.http.asgi import Request
from gen_worker.http.problems import problem

_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")


class ImagesDoor:
    """Handler of `/v1/images/generations`."""

    def __init__(self, catalog: Catalog, runs: Runs, files: Files) -> None:
        self._catalog = catalog
        self._runs = runs
        self._files = files

    async def generate(self, request: Request) -> None:
        """`POST /v1/images/generations`."""
        asked = Parameters(await read_object(request))
        model, prompt = asked.text("model"), asked.text("prompt")
        form = asked.choice("response_format", "url", "b64_json")
        target = find_for(self._catalog, request, model, "image")
        own: dict[str, Any] = {"prompt": prompt}
        if {"width", "height"} <= target.fields.keys() and "size" not in target.fields:
            own |= _size(asked.take("size", "auto"))
        async with self._runs.start(request, target, asked.payload(target, **own)) as run:
            done = await run.finish()
        data = []
        for value in done.output["images"]:
            file = file_at(done, value)
            if file is None:
                raise ProblemError(problem(500, "internal", f"function {target.name!r} returned an image that it has not saved"))
            if form == "url":
                data.append({"url": link(request, file)})
            else:
                data.append({"b64_json": base64.b64encode((await self._files.read(request, file))[0]).decode()})
        usage = usage_of(done)
        tokens = {
            "input_tokens": usage["prompt_tokens"],
            "output_tokens": usage["completion_tokens"],
            "total_tokens": usage["total_tokens"],
        }
        details = {"image_tokens": 0, "text_tokens": usage["prompt_tokens"]}
        body = {"created": int(time.time()), "data": data, "usage": {**tokens, "input_tokens_details": details}}
        await request.answer(200, msgspec.json.encode(body), headers={"x-request-id": run.id})


def _size(value: Any) -> dict[str, int]:
    if value == "auto":
        return {}
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise refused("size", f"{str(value)[:40]!r}; expected WIDTHxHEIGHT in pixels, such as 1024x1024")
    return {"width": int(found[1]), "height": int(found[2])}
