"""`cozyctl invoke`: run a function on the platform, with live progress; Ctrl-C cancels the run first."""

import secrets
import sys
from typing import Any

import click
import msgspec

from gen_orchestrator.cli.api import Api, ApiVerb, url_option
from gen_orchestrator.cli.refs import path_of, payload_of, resolved
from gen_orchestrator.cli.shown import report
from gen_worker import events
from gen_worker.cli.live import LiveRun
from gen_worker.cli.output import EXIT_INTERRUPTED, EXIT_USAGE, fail, json_option, print_json, say, stdout_of
from gen_worker.events import RunEvent

_TYPES = {"progress": events.PROGRESS, "log": events.LOG}


@click.command("invoke", cls=ApiVerb)
@click.argument("ref", metavar="OWNER/ENDPOINT/FUNCTION[:TAG]")
@click.option(
    "-i", "--input", "inputs", multiple=True, metavar="FIELD=VALUE", help="A payload field; FIELD=@FILE sends a file. May be repeated."
)
@click.option("--payload", metavar="JSON", help="The whole payload as JSON; '-' reads it from stdin.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(0, 604800), default=0, help="Seconds until the run is ended; 0: the function's own."
)
@click.option("--priority", type=click.Choice(["high", "normal", "low"]), default="normal", show_default=True)
@click.option("--async", "detach", is_flag=True, help="Print the run and do not wait for it.")
@click.option("--key", help="Idempotency key: the same key gives the same run.")
@url_option
@json_option
def command(
    ref: str,
    inputs: tuple[str, ...],
    payload: str | None,
    timeout_s: float,
    priority: str,
    detach: bool,
    key: str | None,
    url: str,
    as_json: bool,
) -> int:
    """Run a function on the platform and print its output."""
    api = Api(url)
    path = path_of(ref)
    try:
        body: dict[str, Any] = {"payload": _payload(api, path, inputs, payload), "priority": priority}
        if timeout_s:
            body["timeout_s"] = timeout_s
        headers = {"idempotency-key": key or secrets.token_hex(16)}
        if detach:
            run = api.post(path, body, {**headers, "prefer": "respond-async"})
            return report(run, as_json=as_json)
        return _follow(api, path, body, headers, as_json=as_json)
    except click.UsageError as exc:
        return fail(exc.message, EXIT_USAGE, as_json=as_json, code="usage")


def _payload(api: Api, path: str, inputs: tuple[str, ...], payload: str | None) -> Any:
    if payload is not None:
        if inputs:
            raise click.UsageError("give the payload by -i or by --payload, not by both")
        text = sys.stdin.read() if payload == "-" else payload
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError as exc:
            raise click.UsageError(f"--payload is not valid JSON: {exc}") from None
    if not inputs:
        return {}
    document = api.get("/openapi.json")
    entry = document["paths"].get(path.removesuffix(":prod"), {}).get("post")
    if entry is None:
        api.post(path, {"payload": 0})  # the server knows best what is nearest
        return {}
    components = document["components"]["schemas"]
    request = resolved(entry["requestBody"]["content"]["application/json"]["schema"], components)
    return payload_of(inputs, request["properties"]["payload"], components)


def _follow(api: Api, path: str, body: dict[str, Any], headers: dict[str, str], *, as_json: bool) -> int:
    """Show the run as it goes; take its stream up again where it was cut. Ctrl-C cancels the run, a second one leaves."""
    run_id = last_id = ""
    deltas: list[Any] = []
    live = LiveRun(path.removeprefix("/v1/"), stdout_of(), quiet=as_json)
    try:
        with live:
            stream = api.events("POST", path, body, headers)
            while True:
                for ident, name, data in stream:
                    last_id = ident or last_id
                    run_id = data.get("run_id") or run_id if isinstance(data, dict) and name == "status" else run_id
                    if name == "done":
                        live.end_line()
                        return report(data, as_json=as_json, deltas=deltas)
                    if name == "output":
                        deltas.append(data)
                        if not as_json:
                            live.print_delta(msgspec.json.encode(data))
                    elif name in _TYPES and isinstance(data, dict):
                        live.show(RunEvent(_TYPES[name], msgspec.Raw(msgspec.json.encode(data))))
                # The stream was cut before the end of the run: the same key gives the same run again.
                stream = api.events("POST", path, body, {**headers, **({"last-event-id": last_id} if last_id else {})})
    except KeyboardInterrupt:
        return _cancel(api, run_id, as_json=as_json)


def _cancel(api: Api, run_id: str, *, as_json: bool) -> int:
    if run_id:
        say(f"canceling run {run_id}")
        run = api.post(f"/v1/runs/{run_id}/cancel")
        if as_json:
            print_json(run)
    return EXIT_INTERRUPTED
