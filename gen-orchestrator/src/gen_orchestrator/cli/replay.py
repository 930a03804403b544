"""`cozyctl replay FILE`: runs an exported run again, and compares the results."""

import json
from pathlib import Path
from typing import Any

import click

from gen_orchestrator.cli.api import Api, ApiError, ApiVerb, api_path, url_option
from gen_orchestrator.cli.release_names import RELEASE, release_named
from gen_orchestrator.domain.comparison import Difference, differences
from gen_worker.cli.output import EXIT_FAILED, EXIT_USAGE, fail, json_option, print_json, print_line, say
from gen_worker.texts import counted

FORMAT = "gen-orchestrator run"
_TIMINGS = ("queued_ms", "model_ms", "inference_ms", "upload_ms", "total_ms")


@click.command("replay", cls=ApiVerb, short_help="Repeat an exported run and compare.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--release", metavar=RELEASE, help="Release to run. By default the one that ran, else the one that prod points at here.")
@click.option(
    "--tolerance", type=click.FloatRange(0, 1), default=0.0, show_default=True, help="Allowed relative difference of numbers: 0.01 for 1 %."
)
@url_option
@json_option
def command(file: Path, release: str | None, tolerance: float, url: str, as_json: bool) -> int:
    """Repeat the run that `cozyctl runs export` wrote to FILE, and show what differs. Exit status 0: nothing differs."""
    try:
        found = json.loads(file.read_bytes())
        is_ours = isinstance(found, dict) and found.get("format") == FORMAT and found.get("version") == 1
    except ValueError:
        is_ours = False
    if not is_ours:
        return fail(
            f"{file} is not an exported run; write one with: cozyctl runs export ID -o FILE", EXIT_USAGE, as_json=as_json, code="usage"
        )
    before = found["run"]
    api = Api(url)
    name = f"{before['owner']}/{before['endpoint']}/{before['function']}"
    chosen = release_named(api, release) if release else (before["release_id"] if _is_here(api, before["release_id"]) else None)
    path = f"/v1/{name}@{chosen}" if chosen else f"/v1/{name}"
    if not as_json:
        say(f"running {path.removeprefix('/v1/')}")
    after, outputs = _run(api, path, before["input"])
    expected = before["output"] if before.get("output") is not None else _outputs(found["events"])
    actual = after["output"] if after.get("output") is not None else outputs
    apart = differences(expected, actual, tolerance)
    if before["status"] != after["status"]:
        apart.insert(0, Difference("", before["status"], after["status"]))
    if as_json:
        print_json({"run": after, "same": not apart, "differences": [_plain(each) for each in apart]})
        return EXIT_FAILED if apart else 0
    for each in apart:
        print_line(f"{each.pointer or '(the whole)'}: {_shown(each.expected)} -> {_shown(each.actual)}")
    for key in _TIMINGS:
        one, other = (run.get("timings", {}).get(key) for run in (before, after))
        if one is not None or other is not None:
            say(f"{key:<13} {one if one is not None else '-':>8} -> {other if other is not None else '-':>8}")
    say(f"run {after['id']} on {after['release_id']}: " + (counted(len(apart), "difference") if apart else "the same output"))
    return EXIT_FAILED if apart else 0


def _is_here(api: Api, release_id: str) -> bool:
    try:
        api.get(api_path("releases", release_id))
    except ApiError as exc:
        if exc.code != "not_found":
            raise
        return False
    return True


def _run(api: Api, path: str, payload: Any) -> tuple[dict[str, Any], list[Any]]:
    outputs: list[Any] = []
    run: dict[str, Any] = {}
    with api.client() as client:
        handle = client.submit(path.removeprefix("/v1/"), payload)
        try:
            for event in handle.events():
                if event.name == "output":
                    outputs.append(event.data)
                elif event.name == "restart":
                    outputs.clear()  # items of a lost attempt do not count
                elif event.name == "done":
                    run = event.data
        except KeyboardInterrupt:
            handle.cancel()  # nobody else waits for it
            raise
    return run, outputs


def _outputs(events: list[dict[str, Any]]) -> list[Any]:
    """The items of the last attempt of a stream."""
    last = max((int(each["id"].partition("-")[0]) for each in events), default=0)
    return [each["data"] for each in events if each["event"] == "output" and each["id"].startswith(f"{last}-")]


def _plain(each: Difference) -> dict[str, Any]:
    return {"pointer": each.pointer, "expected": each.expected, "actual": each.actual, "distance": each.distance}


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:100]
