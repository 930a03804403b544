"""Chat and text completions: a stream of pieces, sent as chunks or joined into one answer."""

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from gen_worker.front_doors.catalog import Catalog, find_for
from gen_worker.front_doors.openai.errors import error_object
from gen_worker.front_doors.openai.parameters import Parameters, read_object, refused
from gen_worker.front_doors.openai.usage import usage_of
from gen_worker.front_doors.runs import ProblemError, Run, Runs
from gen_worker.http import sse
from gen_worker.http.asgi import Request

_encode = msgspec.json.Encoder().encode
DONE = b"data: [DONE]\n\n"
Piece = dict[str, Any]


class ChatDoor:
    """Handlers of `/v1/chat/completions` and `/v1/completions`."""

    def __init__(self, catalog: Catalog, runs: Runs) -> None:
        self._catalog = catalog
        self._runs = runs

    async def chat(self, request: Request) -> None:
        """`POST /v1/chat/completions`."""
        await self._complete(request, "chat")

    async def completion(self, request: Request) -> None:
        """`POST /v1/completions`."""
        await self._complete(request, "completion")

    async def _complete(self, request: Request, task: str) -> None:
        asked = Parameters(await read_object(request))
        model, stream = asked.text("model"), asked.flag("stream")
        include_usage = _includes_usage(asked.take("stream_options"), stream=stream)
        target = find_for(self._catalog, request, model, task)
        asked.rename("max_completion_tokens", "max_tokens", target.fields)
        own = {"messages": _messages(asked.take("messages"))} if task == "chat" else {"prompt": _prompt(asked.take("prompt"))}
        payload = asked.payload(target, **own)
        async with self._runs.start(request, target, payload) as run:
            words = _Words(task, model, run.id)
            if stream:
                await _stream(request, run, words, include_usage=include_usage)
                return
            whole = _Whole()
            async for piece in run.outputs():
                if piece is not None:
                    whole.add(piece)
            await request.answer(200, words.answer(whole, usage_of(run.done)), headers={"x-request-id": run.id})


async def _stream(request: Request, run: Run, words: "_Words", *, include_usage: bool) -> None:
    """Send the pieces as they come. A run that fails before its first piece is answered with its status; later errors
    go into the stream.
    """
    is_open = False
    ends = ""

    async def begin() -> None:
        nonlocal is_open
        is_open = True
        await request.start(sse.MEDIA_TYPE, {"x-request-id": run.id})
        first = words.chunk(words.opening())
        if first:
            await request.write(first)

    numbers = _Numbers()
    try:
        async for piece in run.outputs():
            if not is_open:
                await begin()
            if piece is None:
                await request.write(sse.HEARTBEAT)
                continue
            ends = piece.pop("finish_reason", None) or ends
            calls = numbers.numbered(piece.pop("tool_calls", None) or ())
            shown = {name: value for name, value in piece.items() if value} | ({"tool_calls": calls} if calls else {})
            if shown:
                await request.write(words.chunk(shown))
        if not is_open:
            await begin()
    except ProblemError as exc:
        if not is_open:
            raise
        await request.write(b"data: %b\n\n" % _encode({"error": error_object(exc.problem)}), last=True)
        return
    usage = usage_of(run.done)
    last = words.chunk(words.empty(), ends or ("tool_calls" if numbers.last >= 0 else "stop"), None if include_usage else usage)
    await request.write(last + (words.usage_chunk(usage) if include_usage else b"") + DONE, last=True)


class _Numbers:
    """Numbers the tool calls of an answer. Pieces identify a call by an id, by a number, or not at all."""

    def __init__(self) -> None:
        self.last = -1
        self._by_id: dict[str, int] = {}

    def numbered(self, calls: Sequence[Piece]) -> list[Piece]:
        """The pieces, each with its call's number."""
        return [{**{name: value for name, value in call.items() if value is not None}, "index": self._index(call)} for call in calls]

    def _index(self, call: Piece) -> int:
        given, name = call.get("index"), call.get("id")
        if given is None:
            given = self._by_id.get(name, max(self._by_id.values(), default=self.last) + 1) if name else max(self.last, 0)
        if name:
            self._by_id[name] = given
        self.last = given
        return int(given)


class _Whole:
    """All pieces, joined."""

    def __init__(self) -> None:
        self.fields: Piece = {}
        self.calls: dict[int, Piece] = {}
        self.ends = ""
        self._numbers = _Numbers()

    def add(self, piece: Piece) -> None:
        self.ends = piece.pop("finish_reason", None) or self.ends
        for call in self._numbers.numbered(piece.pop("tool_calls", None) or ()):
            self._add_call(call["index"], call)
        for name, value in piece.items():
            before = self.fields.get(name)
            self.fields[name] = before + value if isinstance(before, str) and isinstance(value, str) else value

    def _add_call(self, index: int, call: Piece) -> None:
        known = self.calls.setdefault(index, {"id": None, "type": "function", "function": {"name": "", "arguments": ""}})
        known["id"] = call.get("id") or known["id"] or f"call_{index}"
        function = call.get("function") or {}
        known["function"]["name"] = function.get("name") or known["function"]["name"]
        known["function"]["arguments"] += function.get("arguments") or ""


class _Words:
    """The objects of an answer."""

    def __init__(self, task: str, model: str, run_id: str) -> None:
        self._is_chat = task == "chat"
        self._base = {"id": f"{'chatcmpl' if self._is_chat else 'cmpl'}-{run_id}", "created": int(time.time()), "model": model}

    def opening(self) -> Piece:
        return {"role": "assistant", "content": ""} if self._is_chat else {}

    def empty(self) -> Piece:
        return {} if self._is_chat else {"text": ""}

    def chunk(self, piece: Piece, ends: str | None = None, usage: Piece | None = None) -> bytes:
        """One event of a stream; nothing for an empty piece."""
        if not piece and ends is None:
            return b""
        told = {"delta": piece} if self._is_chat else piece
        choice = {"index": 0, **told, "logprobs": None, "finish_reason": ends}
        return self._event([choice], usage)

    def usage_chunk(self, usage: Piece) -> bytes:
        return self._event([], usage)

    def answer(self, whole: _Whole, usage: Piece) -> bytes:
        """The whole answer."""
        ends = whole.ends or ("tool_calls" if whole.calls else "stop")
        if self._is_chat:
            content = whole.fields.get("content", "")
            message: Piece = {"role": "assistant", **whole.fields, "content": content if content or not whole.calls else None}
            if whole.calls:
                message["tool_calls"] = [call for _, call in sorted(whole.calls.items())]
            told: Piece = {"message": message}
        else:
            told = {"text": "", **whole.fields}
        choice = {"index": 0, **told, "logprobs": None, "finish_reason": ends}
        kind = "chat.completion" if self._is_chat else "text_completion"
        return _encode({**self._base, "object": kind, "choices": [choice], "usage": usage})

    def _event(self, choices: list[Piece], usage: Piece | None) -> bytes:
        kind = "chat.completion.chunk" if self._is_chat else "text_completion"
        told: Piece = {**self._base, "object": kind, "choices": choices}
        return b"data: %b\n\n" % _encode(told if usage is None else {**told, "usage": usage})


def _messages(value: Any) -> list[Piece]:
    """The conversation. A message of text pieces only becomes one text."""
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise refused("messages", "missing" if value is None else "expected a list of messages, each {role, content}")
    return [_message(each) for each in value]


def _message(message: Piece) -> Piece:
    found = {name: value for name, value in message.items() if value is not None or name == "content"}
    parts = found.get("content")
    if isinstance(parts, list) and parts and all(isinstance(part, dict) and part.get("type") == "text" for part in parts):
        found["content"] = "\n".join(str(part.get("text", "")) for part in parts)
    return found


def _prompt(value: Any) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str):
        raise refused("prompt", "missing" if value is None else "expected one text")
    return value


def _includes_usage(options: Any, *, stream: bool) -> bool:
    if options is None:
        return False
    if not isinstance(options, dict) or not stream:
        raise refused("stream_options", "expected an object" if stream else "only with stream=true")
    for name in options:
        if name not in ("include_usage", "include_obfuscation"):
            raise refused("stream_options", f"unknown option {name[:40]!r}; expected include_usage")
    return options.get("include_usage") is True
