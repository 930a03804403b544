"""The output of `cozyctl up`: one live screen on a terminal, plain lines elsewhere, JSON lines with --json."""

import asyncio
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.status import Status
from rich.table import Table
from rich.text import Text

from gen_orchestrator.cli.bounded_log import BoundedLog

if TYPE_CHECKING:
    from gen_orchestrator.platform_up import Platform

REFRESH_S = 0.5
LOG_NAME = "orchestrator.log"
MAX_DEPTH = 4  # nesting limit for an example, because a type may contain itself


class Screen:
    """Owns stdout and stderr while the platform is running."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._console = Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._shown: object = None
        self._starting: Status | None = None
        self._painting: asyncio.Task[None] | None = None
        self._file: TextIO | None = None
        if self._console.is_terminal and not as_json:
            signal.signal(signal.SIGTSTP, self._suspend)

    def log_stream(self, data: Path) -> TextIO:
        """Where log lines go: to stderr with --json, otherwise to a file beside the state."""
        if self._as_json:
            return sys.stderr
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = cast("TextIO", BoundedLog(data / LOG_NAME))
        return self._file

    def say(self, text: str) -> None:
        """Print a line for people."""
        if self._as_json:
            print(msgspec.json.encode({"event": "message", "text": text}).decode(), flush=True)
        else:
            self._console.print(Text(text), soft_wrap=not self._console.is_terminal)

    def say_failed(self, text: str) -> None:
        """Print why it ends, always on stderr."""
        self._end_steps()
        print(f"error: {text}", file=sys.stderr)

    def step(self, text: str) -> None:
        """Show the current step of the start: one changing line on a terminal, a line for each step elsewhere. With
        --json the first line must be that of `ready`, so nothing is printed before it.
        """
        if self._as_json or self._painting is not None:
            return
        if not self._can_paint():
            self.say(text)
        elif self._starting is None:
            self._starting = self._console.status(Text(text))
            self._starting.start()
        else:
            self._starting.update(Text(text))

    def ready(self, platform: "Platform", url: str) -> None:
        """The platform serves: print its address, and what to type."""
        from gen_orchestrator.hub.tag_names import DEV

        self._end_steps()
        if platform.settings.asks_for_keys:
            lines = [f"{url}/docs  (try functions there, with a key)", f"cozyctl login --url {url} < {platform.operator_key}"]
        else:
            lines = [f"{url}/docs  (try functions there; no key is needed on this machine)"]
        examples = []
        term = platform.term
        for release in platform.folders.releases.values() if term is not None else ():
            assert term is not None
            for entry in term.registry.manifest(release.release_id).functions[:1]:
                examples.append(f"{release.owner}/{release.endpoint}/{entry.name}:{DEV}")
                key = " -H 'authorization: Bearer KEY'" if platform.settings.asks_for_keys else ""
                lines.append(f"curl -sS {url}/v1/{examples[-1]}{key} {body_of(entry.input_schema)}")
        if self._as_json:
            print(msgspec.json.encode({"event": "ready", "url": url, "functions": examples}).decode(), flush=True)
            return
        for line in lines:
            self._console.print(Text(line), soft_wrap=True)
        if self._console.is_terminal:
            self._painting = asyncio.get_running_loop().create_task(self._paint(platform), name="screen")

    def close(self) -> None:
        self._end_steps()
        self._end_live()
        if self._file is not None:
            self._file.close()

    def _suspend(self, number: int, frame: object) -> None:
        """Ctrl-Z: restore the terminal with its cursor, and stop; `fg` or `bg` continues here."""
        self._end_steps()
        self._end_live()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.signal(number, self._suspend)

    def _can_paint(self) -> bool:
        """Whether the terminal is ours alone now. In the background (`cozyctl up &`) it is not: the screen would wipe
        out other programs' output.
        """
        return self._console.is_terminal and not self._console.is_dumb_terminal and _in_foreground()

    def _end_steps(self) -> None:
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.stop()

    def _end_live(self) -> None:
        live, self._live, self._shown = self._live, None, None
        if live is not None:
            live.stop()

    async def _paint(self, platform: "Platform") -> None:
        while True:
            if not self._can_paint():
                self._end_live()
            else:
                picture = _picture(platform)
                looks = (self._console.size, self._console.render_lines(picture))
                if self._live is None:
                    self._live = Live(console=self._console, auto_refresh=False, transient=True)
                    self._live.start()
                if looks != self._shown:  # writing to a terminal clears the user's text selection
                    self._shown = looks
                    self._live.update(picture, refresh=True)
            await asyncio.sleep(REFRESH_S)


def _in_foreground() -> bool:
    """Whether this process is in the foreground of stderr's terminal. True when that is unknown."""
    try:
        return os.tcgetpgrp(sys.stderr.fileno()) == os.getpgrp()
    except OSError:
        return True


def _picture(platform: "Platform") -> Group:
    term = platform.term
    if term is None:
        return Group(Text("waiting: another process leads, or the store does not answer", style="yellow"))
    functions = Table("function", "release", "queued", "running", "s a run", box=None, pad_edge=False, header_style="dim")
    lanes = {(lane.release_id, lane.function): lane for lane in term.dispatcher.lanes.all()}
    for tag in term.registry.tags(platform.settings.owner):
        lane = lanes.get((tag.release_id, tag.function))
        counts = (str(len(lane.queue)), str(lane.running), f"{lane.run_s:.2f}" if lane.run_s else "") if lane else ("0", "0", "")
        functions.add_row(f"{tag.endpoint}/{tag.function}:{tag.tag}", tag.release_id, *counts)
    workers = Table("worker", "state", "runs", "models in VRAM", "in RAM", "on disk", box=None, pad_edge=False, header_style="dim")
    for worker in term.pool:
        tiers = worker.models_by_tier()
        models = (", ".join(tiers["vram"]) or "-", str(len(tiers["host"])), str(len(tiers["disk"])))
        workers.add_row(worker.worker_id, worker.state, str(len(worker.runs)), *models)
    paused = [Text(f"{release_id} is paused: {why}", style="yellow") for release_id, why in term.fitness.paused.items()]
    failures = [
        Text(f"{release_id}: its worker crashed or was not started: {text[-600:]}", style="red")
        for release_id, text in term.keeper.failures.items()
    ]
    trouble = [Text(term.trouble, style="bold red")] if term.trouble else []
    disk = term.disk.known()
    if disk is not None and disk.is_nearly_full:
        free = f"{disk.free_bytes / 1e9:.1f} GB of the platform's disk are free; what takes room: cozyctl doctor"
        trouble.append(Text(free, style="yellow"))
    return Group(functions, Text(""), workers, *paused, *failures, *trouble)


def body_of(schema: dict[str, Any]) -> str:
    """curl's arguments for a payload that fits the schema: its required fields, with the author's examples if there are
    any. With a file, a form: the reader replaces FILE.
    """
    components = schema.get("$defs", {})
    root = components.get(schema.get("$ref", "").rpartition("/")[2], schema)
    fields = {name: root["properties"][name] for name in root.get("required", ()) if name in root.get("properties", {})}
    if not any(_is_file(field) for field in fields.values()):
        return f"-d {shlex.quote(msgspec.json.encode(_value(schema, components)).decode())}"
    parts = []
    for name, field in fields.items():
        value = _value(field, components)
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        parts.append(f"-F {name}=@FILE" if _is_file(field) else f"-F {shlex.quote(f'{name}={text}')}")
    return " ".join(parts)


def _is_file(field: dict[str, Any]) -> bool:
    return str(field.get("$ref")).endswith("/Asset")


def _value(schema: dict[str, Any], components: dict[str, Any], depth: int = 0) -> object:
    if "$ref" in schema:
        schema = {**components[schema["$ref"].rpartition("/")[2]], **{key: value for key, value in schema.items() if key != "$ref"}}
    examples = schema.get("examples")
    if isinstance(examples, list) and examples:
        return examples[0]
    if "default" in schema:
        return schema["default"]
    enum = schema.get("enum")
    if isinstance(enum, list) and enum:
        return enum[0]
    if schema.get("type") == "array" and schema.get("minItems") and depth < MAX_DEPTH:
        return [_value(schema["items"], components, depth + 1)]
    if "properties" in schema and depth < MAX_DEPTH:
        return {name: _value(schema["properties"][name], components, depth + 1) for name in schema.get("required", ())}
    return {"string": "hello", "integer": 1, "number": 1.0, "boolean": True, "array": []}.get(str(schema.get("type")), {})
