"""`cozyctl invoke`: run a function on the platform, with live progress; Ctrl-C cancels the run first."""

import secrets
import sys
from typing import Any

import click
import msgspec

from gen_orchestrator.cli.api import Api, ApiVerb, api_path, url_option
from gen_orchestrator.cli.following import RunView
from gen_orchestrator.cli.refs import path_of, payload_of, resolved
from gen_orchestrator.cli.release_names import release_named
from gen_orchestrator.cli.shown import report
from gen_worker.cli.given import payload_options
from gen_worker.cli.output import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, fail, interrupted, json_option, print_json
from gen_worker.client import UnreachableError


@click.command("invoke", cls=ApiVerb)
@click.argument("ref", metavar="OWNER/ENDPOINT/FUNCTION[:TAG|@RELEASE]")
@payload_options
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(0, 604800), default=0, help="Time limit of the run in seconds. 0: that of the function."
)
@click.option("--priority", type=click.Choice(["high", "normal", "low"]), default="normal", show_default=True)
@click.option("--async", "detach", is_flag=True, help="Print the run and do not wait for it.")
@click.option("--key", help="Idempotency key: the same key and request give the same run.")
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
    try:
        name, pinned, release = path_of(ref).partition("@")
        path = f"{name}@{release_named(api, release)}" if pinned else name
        body: dict[str, Any] = {"payload": _payload(api, path, inputs, payload), "priority": priority}
        if timeout_s:
            body["timeout_s"] = timeout_s
        headers = {"idempotency-key": key or secrets.token_hex(16)}
        if detach:
            run = api.post(path, body, {**headers, "prefer": "respond-async"})
            return report(run, as_json=as_json)
        return _follow(api, path, body, headers["idempotency-key"], as_json=as_json)
    except click.UsageError as exc:
        return fail(exc.message, EXIT_USAGE, as_json=as_json, code="usage")


def _payload(api: Api, path: str, inputs: tuple[str, ...], payload: str | None) -> Any:
    if payload is not None:
        if inputs:
            raise click.UsageError("give the payload with -i or with --payload, not both")
        text = sys.stdin.read() if payload == "-" else payload
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError as exc:
            raise click.UsageError(f"--payload is not valid JSON: {exc}") from None
    if not inputs:
        return {}
    _, pinned, release_id = path.partition("@")
    if pinned:
        function = path.partition("@")[0].rpartition("/")[2]
        manifest = api.get(api_path("releases", release_id))["manifest"]
        schemas = [entry["input_schema"] for entry in manifest["functions"] if entry["name"] == function]
        return payload_of(inputs, schemas[0], schemas[0].get("$defs", {})) if schemas else {}
    document = api.get("/openapi.json")
    entry = document["paths"].get(path.removesuffix(":prod"), {}).get("post")
    if entry is None:
        api.post(path, {"payload": 0})  # the server knows the nearest name best
        return {}
    components = document["components"]["schemas"]
    request = resolved(entry["requestBody"]["content"]["application/json"]["schema"], components)
    return payload_of(inputs, request["properties"]["payload"], components)


def _follow(api: Api, path: str, body: dict[str, Any], key: str, *, as_json: bool) -> int:
    """Show the run's progress. Ctrl-C cancels the run, a second one leaves it. So does the end of the output's reader."""
    run: dict[str, Any] = {}
    view = RunView(path.removeprefix("/v1/"), quiet=as_json, look=api.run)
    try:
        with view, api.client(view.paused) as client:
            options = {option: value for option, value in body.items() if option != "payload"}
            handle = client.submit(path.removeprefix("/v1/"), body["payload"], idempotency_key=key, **options)
            view.run_id = handle.id
            for event in handle.events():
                view.show(event.name, event.data)
                run = event.data if event.name == "done" else run
    except (TypeError, ValueError) as exc:
        raise click.UsageError(str(exc)) from None
    except KeyboardInterrupt:
        return _cancel(api, view.run_id, as_json=as_json)
    except BrokenPipeError:
        if view.run_id:
            api.post(api_path("runs", view.run_id, "cancel"))
        raise
    except UnreachableError as exc:
        if not view.run_id:
            raise
        again = f"; the run continues: cozyctl runs watch {view.run_id}"
        return fail(f"{exc.detail}{again}", EXIT_FAILED, as_json=as_json, code="unreachable", run_id=view.run_id)
    return report(run, as_json=as_json, deltas=view.deltas)


def _cancel(api: Api, run_id: str, *, as_json: bool) -> int:
    if not run_id:
        return interrupted("interrupted before the platform accepted the run", as_json=as_json)
    run = api.post(api_path("runs", run_id, "cancel"))
    if as_json:
        print_json(run)
        return EXIT_INTERRUPTED
    return interrupted(f"run {run_id} is {run['status']}", as_json=False)
