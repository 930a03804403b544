"""`cozyctl run`: one call of one function, in this process."""

import asyncio
import contextlib
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import msgspec

from gen_worker import events
from gen_worker.authoring.assets import Asset
from gen_worker.cli.live import LiveRun
from gen_worker.cli.output import EXIT_FAILED, EXIT_NOT_FOUND, EXIT_TIMEOUT, EXIT_USAGE, fail, json_option, print_json, say
from gen_worker.cli.session import LocalSession, run_locally
from gen_worker.dev.project import Served, load_project
from gen_worker.dev.server import ServeOptions
from gen_worker.dev.uploads import place, text_value
from gen_worker.http.asgi import RequestError
from gen_worker.names import did_you_mean, slugify
from gen_worker.outcome import Outcome


@click.command("run")
@click.argument("function", required=False)
@click.option(
    "-i", "--input", "inputs", multiple=True, metavar="FIELD=VALUE", help="A payload field; FIELD=@PATH sends a file. May be repeated."
)
@click.option("--payload", metavar="JSON", help="The whole payload as JSON; '-' reads it from stdin.")
@click.option("--model", "models", multiple=True, metavar="KEY=FOLDER", help="Use a local folder for a model key.")
@click.option("--outputs", default="outputs", show_default=True, help="Folder for saved files.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0), default=0, help="Seconds until the run is ended; 0 for none.")
@click.option("--folder", default=".", type=click.Path(exists=True, file_okay=False), help="The endpoint's folder.")
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
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory(prefix="gen-worker-") as run_dir:
        try:
            served = load_project(options.root)
            name = _choose(served, function)
            struct = next(spec.payload_type for spec in served.functions if spec.name == name)
            body, uploads = _payload(inputs, payload, struct)
            session = LocalSession(options, served, name, body, uploads, round(timeout_s * 1000), Path(run_dir))
            live = LiveRun(name, quiet=as_json)
            outcome, files, deltas = asyncio.run(_run(session, live, as_json=as_json))
        except _NotFoundError as exc:
            return _real_stdout(lambda exc=exc: fail(str(exc), EXIT_NOT_FOUND, as_json=as_json, code="not_found"))
        except (RequestError, ValueError) as exc:
            return _real_stdout(lambda exc=exc: fail(str(exc), EXIT_USAGE, as_json=as_json, code="usage"))
    return _report(outcome, files, deltas, as_json=as_json)


class _NotFoundError(Exception):
    pass


async def _run(session: LocalSession, live: LiveRun, *, as_json: bool) -> tuple[Outcome, list[Any], list[Any]]:
    deltas: list[Any] = []

    def on_event(event: events.RunEvent) -> None:
        if event.event_type == events.OUTPUT_DELTA:
            if as_json:
                deltas.append(event.payload)
            else:
                live.print_delta(bytes(event.payload))
        else:
            live.show(event)

    with live:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, session.interrupt)
        outcome, files = await run_locally(session, on_event)
    return outcome, files, deltas


def _report(outcome: Outcome, files: list[Any], deltas: list[Any], *, as_json: bool) -> int:
    status = (
        0 if outcome.success else 130 if outcome.error_type == "canceled" else EXIT_TIMEOUT if outcome.code == "timeout" else EXIT_FAILED
    )
    if as_json:
        output: Any = msgspec.Raw(outcome.output) if outcome.output else deltas or None
        body: dict[str, Any] = {"ok": outcome.success, "output": output, "files": [_file_json(file) for file in files]}
        if not outcome.success:
            body |= {"code": outcome.code, "error": outcome.error_message, "errors": outcome.errors, "retryable": outcome.retryable}
        print_json(body)
        return status
    if not outcome.success:
        say(f"error: {outcome.error_message}")
        return status
    if outcome.output:
        print_json(msgspec.Raw(outcome.output))
    for file in files:
        say(f"saved {file.local_path} ({file.size_bytes} bytes)")
    return status


def _file_json(file: Asset) -> dict[str, Any]:
    return {**msgspec.to_builtins(file), "local_path": file.local_path}


def _choose(served: Served, function: str | None) -> str:
    names = [spec.name for spec in served.functions if spec.kind == "function"]
    if function is None:
        if len(names) == 1:
            return names[0]
        raise _NotFoundError(f"name one of the functions: {', '.join(names)}")
    try:
        name = slugify(function)
    except ValueError:
        name = function
    if name not in names:
        raise _NotFoundError(f"no function {function!r}.{did_you_mean(name, names)} Functions here: {', '.join(names) or 'none'}")
    return name


def _payload(inputs: tuple[str, ...], payload: str | None, struct: type[msgspec.Struct]) -> tuple[bytes, dict[str, Path]]:
    text = sys.stdin.read() if payload == "-" else payload
    try:
        body: Any = msgspec.json.decode(text.encode()) if text else {}
    except (msgspec.DecodeError, RecursionError) as exc:
        raise ValueError(f"--payload is not JSON: {exc}") from None
    uploads: dict[str, Path] = {}
    for item in inputs:
        field, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"-i {item!r}: expected FIELD=VALUE, or FIELD=@PATH for a file")
        if value.startswith("@"):
            path = Path(value[1:]).expanduser()
            if not path.is_file():
                raise ValueError(f"-i {item!r}: there is no file {value[1:]}")
            ref = f"upload:{len(uploads)}/{path.name}"
            uploads[ref] = path
            place(body, field, {"ref": ref})
        else:
            place(body, field, text_value(value, struct, field))
    return msgspec.json.encode(body), uploads


def _real_stdout(report: Any) -> int:
    with contextlib.redirect_stdout(sys.__stdout__ or sys.stderr):
        status: int = report()
    return status
