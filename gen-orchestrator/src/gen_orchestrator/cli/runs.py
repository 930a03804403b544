"""`cozyctl runs list|get|watch|export|webhooks|cancel|retry`."""

import time
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.table import Column

from gen_orchestrator.cli.api import Api, ApiVerb, api_path, url_option
from gen_orchestrator.cli.following import RunView
from gen_orchestrator.cli.shown import age, exit_status, name_of, print_tables, report, span, table
from gen_worker.cli.output import EXIT_FAILED, EXIT_NOT_FOUND, fail, interrupted, json_option, print_json, print_line, say, write_file
from gen_worker.client import UnreachableError

MAX_LIMIT = 500


@click.group("runs")
def command() -> None:
    """List, show, watch, cancel and repeat runs; see their webhooks."""


@command.command("list", cls=ApiVerb)
@click.option("--status", help="queued, starting, running, succeeded, failed, canceled or expired")
@click.option("--function", metavar="NAME", help="A function, as NAME or as OWNER/ENDPOINT/NAME.")
@click.option("--limit", type=click.IntRange(1, MAX_LIMIT), default=20, show_default=True)
@url_option
@json_option
def list_runs(status: str | None, function: str | None, limit: int, url: str, as_json: bool) -> int:
    """List runs, newest first."""
    owner, endpoint, name = _function(function or "")
    page = Api(url).get("/v1/runs", status=status, owner=owner, endpoint=endpoint, function=name, limit=limit)
    if as_json:
        print_json(page)
        return 0
    if not page["data"]:
        of = f" of {function}" if function else ""
        say(f"no {f'{status} ' if status else ''}runs{of}; what is served: cozyctl ps")
        return 0
    shown = table(Column("run", no_wrap=True), "function", "status", "age", "took")
    for run in page["data"]:
        took = run.get("timings", {}).get("total_ms")
        created_s = datetime.fromisoformat(run["created_at"]).timestamp()
        attempts = f" ({run['attempt']})" if run["attempt"] > 1 else ""
        shown.add_row(
            run["id"],
            name_of(run),
            f"{run['status']}{attempts}",
            age(time.time() - created_s),
            span(took) if took is not None else "",
        )
    print_tables(shown)
    if page["next_cursor"] and limit < MAX_LIMIT:
        say(f"show older runs: --limit {min(MAX_LIMIT, limit * 5)}")
    return 0


@command.command("get", cls=ApiVerb)
@click.argument("run_id")
@click.option("--why", is_flag=True, help="Explain why this worker was chosen, or what the run waits for.")
@url_option
@json_option
def get(run_id: str, why: bool, url: str, as_json: bool) -> int:
    """Show a run."""
    run = Api(url).get(api_path("runs", run_id))
    if why and not as_json:
        _explain(run)
        return 0
    print_json(run)
    return 0


@command.command("watch", cls=ApiVerb)
@click.argument("run_id")
@url_option
@json_option
def watch(run_id: str, url: str, as_json: bool) -> int:
    """Follow a run: progress and log on stderr, stream and output on stdout. A broken connection is resumed."""
    api = Api(url)
    run: dict[str, Any] = {}
    try:
        run = api.get(api_path("runs", run_id))
        with RunView(name_of(run), quiet=as_json, look=api.run) as view, api.client(view.paused) as client:
            for event in client.handle(run_id).events():
                view.show(event.name, event.data)
                run = event.data if event.name == "done" else run
    except UnreachableError as exc:
        return fail(f"{exc.detail}; continue with: cozyctl runs watch {run_id}", EXIT_FAILED, as_json=as_json, code="unreachable")
    except KeyboardInterrupt:
        return interrupted(f"the run continues; cancel it with: cozyctl runs cancel {run_id}", as_json=as_json, run_id=run_id)
    return report(run, as_json=as_json, deltas=view.deltas)


@command.command("export", cls=ApiVerb)
@click.argument("run_id")
@click.option("-o", "--output", metavar="FILE", help="Write it there instead of on stdout.")
@url_option
@json_option
def export(run_id: str, output: str | None, url: str, as_json: bool) -> int:
    """Print a run as JSON with its input, release and events, to inspect it elsewhere or to run it again (cozyctl replay)."""
    found = Api(url).get(api_path("runs", run_id, "export"))
    if output is None:
        print_json(found)
        return 0
    try:
        write_file(Path(output), msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    except OSError as exc:
        return fail(f"{output} cannot be written: {exc.strerror}", EXIT_FAILED, as_json=as_json, code="storage")
    say(f"{output}: run {run_id}. Run it again with: cozyctl replay {output}")
    return 0


@command.command("webhooks", cls=ApiVerb)
@click.argument("run_id")
@click.option("--redeliver", is_flag=True, help="Send the newest delivery again, or the one named by --delivery.")
@click.option("--delivery", metavar="ID", help="Delivery that --redeliver sends.")
@url_option
@json_option
def webhooks(run_id: str, redeliver: bool, delivery: str | None, url: str, as_json: bool) -> int:
    """List a run's webhook deliveries and the result of each try; or send one again."""
    if delivery and not redeliver:
        raise click.UsageError("--delivery selects what --redeliver sends: add --redeliver")
    api = Api(url)
    found = api.get(api_path("runs", run_id, "webhooks"))["data"]
    if redeliver:
        if not found:
            return fail(f"run {run_id} has no deliveries: its request named no webhook", EXIT_NOT_FOUND, as_json=as_json, code="not_found")
        named = delivery or found[-1]["id"]
        made = api.post(api_path("runs", run_id, "webhooks", named, "redeliver"))
        if as_json:
            print_json(made)
        else:
            print_line(made["id"])
            say(f"it is being sent; see the result: cozyctl runs webhooks {run_id}")
        return 0
    if as_json:
        print_json({"data": found})
        return 0
    if not found:
        say(f"run {run_id} has no deliveries: its request named no webhook")
        return 0
    shown = table(Column("delivery", no_wrap=True), "event", "state", "tries", "last answer", "took", "url")
    for each in found:
        last = each["tries"][-1] if each["tries"] else None
        answer = "" if last is None else str(last["status"] or "") + (f" {last['error']}" if last["error"] else "")
        took = "" if last is None else span(last["took_ms"])
        state = each["state"]
        if each.get("next_try_at"):
            left_s = datetime.fromisoformat(each["next_try_at"]).timestamp() - time.time()
            state += f", next try in {age(left_s)}" if each["tries"] and left_s > 0 else ""
        shown.add_row(each["id"], each["event"], state, str(len(each["tries"])), answer.strip(), took, each["url"])
    print_tables(shown)
    return 0


@command.command("cancel", cls=ApiVerb)
@click.argument("run_id")
@url_option
@json_option
def cancel(run_id: str, url: str, as_json: bool) -> int:
    """Cancel a run. An ended run is not changed."""
    run = Api(url).post(api_path("runs", run_id, "cancel"))
    if as_json:
        print_json(run)
    else:
        print_line(run["status"])
        if run["status"] in ("succeeded", "failed", "expired"):
            say(f"run {run_id} had already ended")
    return 0


@command.command("retry", cls=ApiVerb)
@click.argument("run_id")
@url_option
@json_option
def retry(run_id: str, url: str, as_json: bool) -> int:
    """Start a new run with the payload of an ended one."""
    run = Api(url).post(api_path("runs", run_id, "retry"))
    if as_json:
        print_json(run)
    else:
        print_line(run["id"])
        say(f"follow it with: cozyctl runs watch {run['id']}")
    return exit_status(run)


def _function(text: str) -> tuple[str, str, str]:
    """Owner, endpoint and name in `--function`; the first two are empty when only a name is given."""
    parts = text.split("/")
    if len(parts) not in (1, 3) or (len(parts) == 3 and not all(parts)) or ":" in text:
        raise click.UsageError(f"--function {text!r}: expected a name such as generate, or owner/endpoint/name without a tag")
    return ("", "", text) if len(parts) == 1 else (parts[0], parts[1], parts[2])


def _explain(run: dict[str, Any]) -> None:
    routing = run.get("routing") or {}
    print_line(f"run {run['id']} is {run['status']}, attempt {run['attempt']}, worker {run.get('worker_id') or '-'}")
    if run["status"] == "queued" and routing:
        print_line(f"it waits ({routing['reason']}): {routing.get('detail', '')}")
        for line in routing.get("last_lines", "").splitlines():
            print_line(f"  | {line}")
    elif routing:
        print_line(f"chosen because: {routing['reason']}")
    if routing:
        for each in routing.get("considered", ()):
            costs = f"wait {each['wait_s']} s, models {each['model_s']} s, in all {each['total_s']} s"
            print_line(f"  {each['worker_id']}: models {each['tier']}, {costs}")
    for warning in run.get("warnings") or ():
        print_line(f"warning: {warning['pointer']}: {warning['message']}")
    if stuck := run.get("stuck"):
        print_line(f"it hangs in {stuck.get('phase')} for {stuck.get('elapsed_ms', 0) / 1000:.0f} s:")
        for stack in stuck.get("stacks", ()):
            print_line(stack)
