"""`cozyctl run`: calls one function once, in this process."""

import asyncio
import contextlib
import enum
import logging
import math
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
import msgspec

from gen_worker import events
from gen_worker.authoring.assets import Asset
from gen_worker.authoring.signature import FunctionSpec, SignatureError
from gen_worker.cli.folder import folder_flag, folder_option
from gen_worker.cli.given import STDIN, file_of, given_by_field, payload_options, text_of
from gen_worker.cli.live import LiveRun
from gen_worker.cli.output import (
    EXIT_BROKEN_PIPE,
    EXIT_FAILED,
    EXIT_NOT_FOUND,
    EXIT_TIMEOUT,
    EXIT_USAGE,
    Verb,
    fail,
    interrupted,
    json_option,
    print_json,
    say,
    stdout_of,
)
from gen_worker.cli.session import LocalSession, run_locally
from gen_worker.contract.form_fields import FormFieldError
from gen_worker.dev.server import ServeOptions
from gen_worker.errors import FieldError
from gen_worker.execution.text_fields import FormPayload, read_json
from gen_worker.frames import shown_path
from gen_worker.http.asgi import RequestError
from gen_worker.leaving import end_at_once, stop_signals
from gen_worker.log import Log
from gen_worker.names import did_you_mean, slugify
from gen_worker.outcome import Outcome
from gen_worker.project.cozy_toml import CozyTomlError
from gen_worker.project.discovery import DiscoveryError
from gen_worker.project.served import Served, load_project
from gen_worker.project.stdout import silence
from gen_worker.project.validation import VersionError
from gen_worker.scratch import scratch_folder
from gen_worker.shared_files import remove_tree
from gen_worker.texts import counted

LEFT_DEBUGGER = "bdb.BdbQuit"  # the last line of the traceback


class Seconds(click.FloatRange):
    """A finite number of seconds. click's own range check would accept `nan`, because comparisons with it are false."""

    def __init__(self) -> None:
        super().__init__(0, 7 * 24 * 3600)

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))  # type: ignore[arg-type] # its stub forgets text
        if math.isnan(number):
            self.fail(f"{value!r} is not a number of seconds", param, ctx)
        return number


def _complete_function(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from gen_worker.cli.named_functions import named_functions

    folder = Path(ctx.params.get("folder") or ".")
    return [name for name in named_functions(folder) if name.startswith(incomplete)] if (folder / "cozy.toml").is_file() else []


@click.command("run", cls=Verb)
@click.argument("function", required=False, shell_complete=_complete_function)
@payload_options
@click.option("--model", "models", multiple=True, metavar="KEY=FOLDER", help="Use a local folder for a model key. May be repeated.")
@click.option("--outputs", default="outputs", show_default=True, help="Folder for saved files.")
@click.option("--timeout", "timeout_s", type=Seconds(), default=0, help="Time limit of the run in seconds. 0: none.")
@folder_option()
@json_option
def command(
    function: str | None,
    inputs: tuple[str, ...],
    payload: str | None,
    models: tuple[str, ...],
    outputs: str,
    timeout_s: float,
    folder: str,
    as_json: bool,
) -> int:
    """Run FUNCTION once and print its output. FUNCTION may be left out where there is only one."""
    options = ServeOptions(root=Path(folder), outputs=Path(outputs), models=models)
    with scratch_folder() as run_dir:
        try:
            served = load_project(options.root, os.environ)
            spec = _choose(served, function)
            body, uploads = _payload(inputs, payload, spec.payload_type, run_dir / "given")
            session = LocalSession(options, served, spec.name, body, uploads, round(timeout_s * 1000), run_dir)
        except _NotFoundError as exc:
            return fail(str(exc), EXIT_NOT_FOUND, as_json=as_json, code="not_found")
        except VersionError as exc:
            return fail(str(exc), EXIT_FAILED, as_json=as_json, code="version")
        except (DiscoveryError, CozyTomlError, SignatureError) as exc:
            return fail(str(exc), EXIT_FAILED, as_json=as_json, code="discovery")
        except (RequestError, ValueError) as exc:
            return fail(str(exc), EXIT_USAGE, as_json=as_json, code="usage")
        if not logging.getLogger().handlers:
            logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[_Records()])
        live = LiveRun(spec.name, stdout_of(), quiet=as_json, text_field=_text_field(spec))
        ended = asyncio.run(_run(session, live, run_dir, as_json=as_json))
    return _report(ended, _usage(spec, served.models_by_function.get(spec.name, {}), folder), as_json=as_json)


class _NotFoundError(Exception):
    pass


class _Ended(msgspec.Struct):
    outcome: Outcome
    files: list[Asset]
    deltas: list[Any]
    warnings: list[FieldError]
    unread: bool  # nobody reads our stdout any more
    stopped_by: int | None  # the number of the signal


async def _run(session: LocalSession, live: LiveRun, scratch: Path, *, as_json: bool) -> _Ended:
    deltas: list[Any] = []
    warnings: list[FieldError] = []
    unread = False
    stopped_by: int | None = None

    def on_event(event: events.RunEvent) -> None:
        nonlocal unread
        try:
            if unread:
                return
            if event.event_type == events.WARNING:
                warnings.extend(event.payload.warnings)
            elif event.event_type != events.OUTPUT_DELTA:
                live.show(event)
            elif as_json:
                deltas.append(event.payload)
            else:
                live.print_delta(bytes(event.payload))
        except BrokenPipeError:  # `cozyctl run ... | head -1`: nobody needs the rest
            unread = True
            session.interrupt()

    def on_signal(number: int) -> None:
        nonlocal stopped_by
        stopped_by = number
        for again in stop_signals():
            asyncio.get_running_loop().add_signal_handler(again, _end_at_once, scratch)
        session.interrupt()

    try:
        with live:
            for number in stop_signals():
                asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
            outcome, files = await run_locally(session, on_event, TerminalLog(live))
    except BrokenPipeError:
        if not unread:
            raise
    return _Ended(outcome, files, deltas, warnings, unread, stopped_by)


def _end_at_once(scratch: Path) -> None:
    with contextlib.suppress(OSError):
        remove_tree(scratch.parent, scratch.name)
    end_at_once()


class _Records(logging.Handler):
    """Prints records of `logging` as lines, like those of `ctx.log`."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            # the present `sys.stderr`: a bar replaces it by a stream of its own
            sys.stderr.write(f"{record.levelname.lower()}: {self.format(record)}\n")
        except Exception:  # noqa: BLE001 - arguments that do not fit their format are the author's; `logging` shows where they are
            self.handleError(record)


class TerminalLog(Log):
    """Log lines of a run for the person who started it: of a failure, only the traceback."""

    def __init__(self, live: LiveRun) -> None:
        super().__init__()
        self._live = live

    def warning(self, name: str, **facts: Any) -> None:
        if name != "run.unknown_fields":  # the report shows them with the likely names
            self._live.end_line()
            super().warning(name, **facts)

    def error(self, name: str, **facts: Any) -> None:
        self._live.end_line()
        if (trace := facts.get("traceback", "")).rstrip().endswith(LEFT_DEBUGGER):
            return
        if trace:
            sys.stderr.write(f"{trace.rstrip()}\n")
        else:
            super().error(name, **facts)


def _report(ended: _Ended, usage: str, *, as_json: bool) -> int:
    outcome = ended.outcome
    if ended.unread:
        silence()
        return EXIT_BROKEN_PIPE
    status = (
        0
        if outcome.success
        else 128 + (ended.stopped_by or signal.SIGINT)
        if outcome.error_type == "canceled"
        else EXIT_TIMEOUT
        if outcome.code == "timeout"
        else EXIT_FAILED
    )
    if as_json:
        output: Any = msgspec.Raw(outcome.output) if outcome.output else ended.deltas or None
        body: dict[str, Any] = {"ok": outcome.success, "output": output, "files": [_file_json(file) for file in ended.files]}
        if ended.warnings:
            body["warnings"] = ended.warnings
        if not outcome.success:
            body |= {"code": outcome.code, "error": outcome.error_message, "errors": outcome.errors, "retryable": outcome.retryable}
        print_json(body)
        return status
    for warning in ended.warnings:
        hint = f" Did you mean {warning.suggestion!r}?" if warning.suggestion else ""
        say(f"warning: {warning.message}, at {warning.pointer}, was left out.{hint}")
    if outcome.error_type == "canceled" and ended.stopped_by is not None:
        interrupted("interrupted", as_json=False)
        return status
    if outcome.error_message.startswith("BdbQuit"):
        return interrupted("ended in the debugger", as_json=False)
    if not outcome.success:
        say(f"error: {outcome.error_message}")
        if outcome.errors:
            say(f"usage: {usage}")
        return status
    if outcome.output:
        print_json(msgspec.Raw(outcome.output))
    for file in ended.files:
        say(f"saved {shown_path(str(file.local_path))} ({counted(file.size_bytes or 0, 'byte')})")
    return status


def _file_json(file: Asset) -> dict[str, Any]:
    return {**msgspec.to_builtins(file), "local_path": file.local_path}


def _usage(spec: FunctionSpec, models: Iterable[str], folder: str) -> str:
    """The command with the payload's fields, for an error about them. A field that chooses a model shows the possible keys."""
    keys = "|".join(models)
    words = {str: "TEXT", int: "NUMBER", float: "NUMBER", bool: "true|false", Asset: "@FILE"}
    shown = []
    for field in msgspec.structs.fields(spec.payload_type):
        kinds = [kind for kind in _parts(field.type) if kind in words]
        word = keys if keys and field.name in spec.selecting_fields else _values(field.type) or (words[kinds[0]] if kinds else "JSON")
        option = f"-i {field.encode_name}={word}"
        shown.append(option if field.required else f"[{option}]")
    return " ".join([f"cozyctl run {spec.name}{folder_flag(folder)}", *shown])


def _parts(kind: Any) -> Iterator[Any]:
    """A type, and the types that it is made of: `str` and None of `Annotated[str | None, Meta(...)]`, `str` of `list[str]`."""
    yield kind
    if get_origin(kind) is not Literal:
        for each in get_args(kind):
            yield from _parts(each)


def _values(kind: Any) -> str:
    """The values of a field that has few, as `fast|good`; empty for others."""
    for each in _parts(kind):
        if get_origin(each) is Literal:
            return "|".join(str(value) for value in get_args(each))
        if isinstance(each, type) and issubclass(each, enum.Enum):
            return "|".join(str(member.value) for member in each)
    return ""


def _text_field(spec: FunctionSpec) -> str:
    """The text field that is the only content of a stream's items: `Delta(chunk: str)`."""
    fields = msgspec.structs.fields(spec.output_type) if spec.output_mode == "incremental" else ()
    one = msgspec.inspect.type_info(spec.output_type)
    if len(fields) == 1 and isinstance(one, msgspec.inspect.StructType) and isinstance(one.fields[0].type, msgspec.inspect.StrType):
        return fields[0].encode_name
    return ""


def _choose(served: Served, function: str | None) -> FunctionSpec:
    specs = {spec.name: spec for spec in served.functions if spec.kind == "function"}
    if function is None:
        if len(specs) == 1:
            return next(iter(specs.values()))
        raise _NotFoundError(f"name one of the functions: {', '.join(specs)}")
    try:
        name = slugify(function)
    except ValueError:
        name = function
    if name not in specs:
        sockets = [spec.name for spec in served.functions if spec.kind == "websocket"]
        also = f"; {name!r} is a websocket, which `cozyctl run` cannot call" if name in sockets else ""
        raise _NotFoundError(f"no function {function!r}{also}.{did_you_mean(name, specs)} Functions here: {', '.join(specs) or 'none'}")
    return specs[name]


def _payload(inputs: tuple[str, ...], payload: str | None, struct: type[msgspec.Struct], copies: Path) -> tuple[bytes, dict[str, Path]]:
    fields = given_by_field(inputs, payload)
    text = sys.stdin.read() if payload == STDIN else payload
    try:
        form = FormPayload(struct, read_json(text) if text else {})
    except FormFieldError as exc:
        raise ValueError(f"--payload is not JSON: {exc}") from None
    for field, values in fields.items():
        if all(value.startswith("@") for value in values) and form.takes_file(field):
            form.add_files(field, [file_of(field, value[1:], copies) for value in values])
        else:
            form.add_texts(field, [text_of(field, value) for value in values])
    return form.encoded(), form.uploads
