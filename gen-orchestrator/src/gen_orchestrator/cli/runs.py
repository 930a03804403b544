"""`cozyctl runs list|get|watch|cancel|retry`."""

import json
import time
from datetime import datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Column, Table

from gen_orchestrator.cli.api import Api, ApiError, ApiVerb, url_option
from gen_orchestrator.cli.shown import age, exit_status, report
from gen_worker.cli.output import EXIT_FAILED, EXIT_INTERRUPTED, json_option, print_json, print_line, say, stdout_of

MAX_RESUMES = 10


@click.group("runs")
def command() -> None:
    """List, show, watch, cancel and repeat runs."""


@command.command("list", cls=ApiVerb)
@click.option("--status", help="queued, starting, running, succeeded, failed, canceled or expired")
@click.option("--function", help="Name of the function, without owner and endpoint.")
@click.option("--limit", type=click.IntRange(1, 500), default=20, show_default=True)
@url_option
@json_option
def list_runs(status: str | None, function: str | None, limit: int, url: str, as_json: bool) -> int:
    """Runs, newest first."""
    page = Api(url).get("/v1/runs", status=status, function=function, limit=limit)
    if as_json:
        print_json(page)
        return 0
    table = Table(Column("run", no_wrap=True), "function", "status", "attempt", "age", "took", box=None, pad_edge=False, header_style="dim")
    for run in page["data"]:
        took = run.get("timings", {}).get("total_ms")
        created_s = datetime.fromisoformat(run["created_at"]).timestamp()
        name = f"{run['owner']}/{run['endpoint']}/{run['function']}:{run['tag']}"
        table.add_row(
            run["id"], name, run["status"], str(run["attempt"]), age(time.time() - created_s), f"{took} ms" if took is not None else ""
        )
    Console(file=stdout_of().text(), highlight=False).print(table)
    return 0


@command.command("get", cls=ApiVerb)
@click.argument("run_id")
@click.option("--why", is_flag=True, help="Say why this worker was chosen, and what the run waits for.")
@url_option
@json_option
def get(run_id: str, why: bool, url: str, as_json: bool) -> int:
    """One run, whole."""
    run = Api(url).get(f"/v1/runs/{run_id}")
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
    """A run's events as they come, one a line; then how it ended. Where the stream is cut, it is taken up again."""
    api = Api(url)
    last_id, failures = "", 0
    try:
        while True:
            try:
                for ident, name, data in api.events("GET", f"/v1/runs/{run_id}/events", headers={"last-event-id": last_id}):
                    failures = 0
                    last_id = ident or last_id
                    if name == "done":
                        return report(data, as_json=as_json)
                    say(f"{ident or '-':>8}  {name:<9} {json.dumps(data, ensure_ascii=False)}")
            except ApiError as exc:
                if exc.code != "unreachable" or not last_id or failures >= MAX_RESUMES:
                    raise
            failures += 1
            if failures > MAX_RESUMES:
                say(f"the stream was cut {failures} times; go on with: cozyctl runs watch {run_id}")
                return EXIT_FAILED
            time.sleep(min(5.0, 0.1 * 2**failures))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


@command.command("cancel", cls=ApiVerb)
@click.argument("run_id")
@url_option
@json_option
def cancel(run_id: str, url: str, as_json: bool) -> int:
    """Stop a run. One that is over stays as it is."""
    run = Api(url).post(f"/v1/runs/{run_id}/cancel")
    if as_json:
        print_json(run)
    else:
        print_line(run["status"])
    return 0


@command.command("retry", cls=ApiVerb)
@click.argument("run_id")
@url_option
@json_option
def retry(run_id: str, url: str, as_json: bool) -> int:
    """A new run with the payload of one that is over."""
    run = Api(url).post(f"/v1/runs/{run_id}/retry")
    if as_json:
        print_json(run)
    else:
        print_line(run["id"])
        say(f"follow it with: cozyctl runs watch {run['id']}")
    return exit_status(run)


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
