"""`cozyctl releases|tags|promote|rollback|diff`: what is published, and what callers get."""

import time
from typing import Any

import click
from rich.table import Column

from gen_orchestrator.cli.api import Api, ApiError, ApiVerb, api_path, url_option
from gen_orchestrator.cli.gate_results import print_results
from gen_orchestrator.cli.release_names import RELEASE, no_tag, release_named, split_function
from gen_orchestrator.cli.shown import age, bytes_of, print_tables, table
from gen_orchestrator.domain.pruning import MAX_KEEP
from gen_worker.cli.output import EXIT_FAILED, EXIT_NOT_FOUND, fail, json_option, print_json, print_line, say
from gen_worker.names import did_you_mean


def percent_of(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """A percentage: `10%` or `10`."""
    if value is None:
        return None
    try:
        percent = float(value.strip().removesuffix("%"))
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        raise click.BadParameter(f"{value!r}; expected a share from 0% to 100%, such as 10%")
    return percent


tag_option = click.option("--tag", default="prod", show_default=True, help="Tag to move.")
function_option = click.option("--function", "functions", multiple=True, metavar="NAME", help="Only this function. May be repeated.")


class _Listing(click.Group):
    """Lists when no verb is named: `cozyctl releases`, `cozyctl releases OWNER/ENDPOINT`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        named = bool(args) and (args[0] in self.commands or args[0] == "--help")
        return super().parse_args(ctx, args if named else ["list", *args])


@click.group("releases", cls=_Listing)
def releases() -> None:
    """List, show and delete releases. `cozyctl releases` alone lists them."""


@releases.command("list", cls=ApiVerb)
@click.argument("endpoint", required=False, metavar="[OWNER/ENDPOINT]")
@click.option("--deleted", is_flag=True, help="Show deleted releases.")
@url_option
@json_option
def list_releases(endpoint: str | None, deleted: bool, url: str, as_json: bool) -> int:
    """List releases, newest first, with their tags."""
    owner, name = split_endpoint(endpoint)
    found = Api(url).get("/v1/releases", owner=owner, endpoint=name, deleted="true" if deleted else None)
    if as_json:
        print_json(found)
        return 0
    shown = table(Column("release", no_wrap=True), "of", "age", "tags", "message")
    for each in found["data"]:
        tagged = ", ".join(each["tags"]) or "-"
        shown.add_row(
            each["release_id"], f"{each['owner']}/{each['endpoint']}", age(time.time() - each["created_at"]), tagged, each["message"]
        )
    of = f" of {endpoint}" if endpoint else ""
    print_tables(shown, none=f"no {'deleted ' if deleted else ''}releases{of}; what is served: cozyctl ps")
    return 0


@click.command("tags", cls=ApiVerb)
@click.argument("endpoint", required=False, metavar="[OWNER/ENDPOINT[/FUNCTION]]")
@click.option("--history", is_flag=True, help="Show where each tag has pointed before, too.")
@url_option
@json_option
def tags(endpoint: str | None, history: bool, url: str, as_json: bool) -> int:
    """List tags and the releases they point at."""
    owner, name, function = split_function(endpoint)
    api = Api(url)
    found = api.get("/v1/tags", owner=owner, endpoint=name, function=function)["data"]
    if history:
        found = [each for tag in found for each in api.get(_tag_path(tag))["history"]]
    if as_json:
        print_json({"data": found})
        return 0
    shown = table("function", "tag", Column("release", no_wrap=True), "moved", "move")
    for each in found:
        deleted = " (deleted)" if "deleted_at" in each else ""
        name = f"{each['owner']}/{each['endpoint']}/{each['function']}"
        candidate = each.get("candidate")
        release = each["release_id"] + (f" + {candidate['percent']:g}% {candidate['release_id']}" if candidate else deleted)
        shown.add_row(name, each["tag"], release, f"{age(time.time() - each['moved_at'])} ago", str(each["version"]))
    print_tables(shown, none=f"no tags{f' of {endpoint}' if endpoint else ''}; what is served: cozyctl ps")
    return 0


@click.command("promote", cls=ApiVerb, short_help="Point a tag at a release.")
@click.argument("release", metavar=RELEASE)
@function_option
@tag_option
@click.option("--breaking", is_flag=True, help="Move the tag even if the change breaks callers.")
@click.option("--now", is_flag=True, help="Move the tag even before a worker of the release is ready.")
@click.option(
    "--canary", callback=percent_of, metavar="PERCENT", help="Canary: send it this share of the tag's runs, such as 10%. 0 ends the canary."
)
@click.option("--skip-gates", is_flag=True, help="Do not run the golden requests (cozyctl golden).")
@url_option
@json_option
def promote(
    release: str,
    functions: tuple[str, ...],
    tag: str,
    breaking: bool,
    now: bool,
    canary: float | None,
    skip_gates: bool,
    url: str,
    as_json: bool,
) -> int:
    """Point a tag of each function at RELEASE, such as hello-1a2b3c4d5e6f, or at what another tag points at, such as local/hello:dev.
    local/hello/generate:dev is that function alone."""
    api = Api(url)
    targets = _targets(api, release, functions)
    if not targets:
        return fail(f"{release} has no function to promote", EXIT_NOT_FOUND, as_json=as_json, code="not_found")
    moved, wanted, changed = [], [], []
    body = {"breaking": breaking, "now": now, "skip_gates": skip_gates, "canary": canary}
    is_move = canary is None or canary >= 100
    for target in targets:  # all checks of all functions come first, so that a failing one leaves no promote half done
        before = api.put(_tag_path({**target, "tag": tag}), {**body, "release_id": target["release_id"], "dry_run": True})
        if canary and canary < 100 and before["release_id"] == target["release_id"]:
            say(f"{target['function']}:{tag} already points at {target['release_id']}: it needs no canary")
        else:
            wanted.append((target, before["version"]))
    for target, version in wanted:
        moved.append(api.put(_tag_path({**target, "tag": tag}), {**body, "release_id": target["release_id"]}))
        if is_move and moved[-1]["version"] == version:
            say(f"{target['function']}:{tag} already points at {target['release_id']}: it has not moved")
            continue
        changed.append(moved[-1])
        if not as_json:
            _tell(moved[-1])
    if as_json:
        print_json({"data": moved})
    elif is_move and changed:  # where nothing has moved, a rollback would undo the move before this
        one = f"/{changed[0]['function']}" if len(moved) == 1 else ""
        say(_undo(f"{changed[0]['owner']}/{changed[0]['endpoint']}{one}", tag))
    return 0


@click.command("rollback", cls=ApiVerb, short_help="Point a tag back at its previous release.")
@click.argument("endpoint", metavar="OWNER/ENDPOINT[/FUNCTION]")
@click.option("--now", is_flag=True, help="Move the tag even before a worker of the release is ready.")
@click.option("--to", "wanted", metavar=RELEASE, help="Release to go back to. By default the one the tag pointed at before.")
@tag_option
@url_option
@json_option
def rollback(endpoint: str, now: bool, wanted: str | None, tag: str, url: str, as_json: bool) -> int:
    """Point a tag back at its previous release, for one function or for all functions of an endpoint. A second rollback undoes the
    first one, even if that breaks callers. While a canary runs, a rollback ends the canary, and no tag moves."""
    owner, name, function = split_function(endpoint)
    api = Api(url)
    moved, stays, is_undone = [], [], False
    found = api.get("/v1/tags", owner=owner, endpoint=name, function=function)["data"]
    mine = [each for each in found if each["tag"] == tag]
    if not mine:
        raise no_tag(api, owner, name, tag, found)
    # The last step is undone. If that is a canary, the tags have not moved since.
    if not wanted and any("candidate" in each for each in mine):
        return _end_canaries(api, [each for each in mine if "candidate" in each], as_json=as_json)
    wanted = release_named(api, wanted) if wanted else None
    for each in mine:
        history = api.get(_tag_path(each))["history"]
        there = [old["release_id"] for old in history if "deleted_at" not in old]
        before = wanted or next((release_id for release_id in there if release_id != each["release_id"]), None)
        if before is None:
            stays.append(f"{each['function']}:{tag} has no earlier release that still exists: it stays at {each['release_id']}")
            continue
        body = {"release_id": before, "expected": each["release_id"], "now": now, "skip_gates": True}
        is_forth = not wanted and _is_forth(history, before)
        breaks = is_forth and not as_json and _breaks_callers(api, each, before)
        moved.append(api.put(_tag_path(each), body))
        if not as_json:
            _tell(moved[-1])
        if is_forth and not as_json:
            is_undone = True
            say(f"this undoes the rollback from {before}" + (": it breaks callers again" if breaks else ""))
            if breaks:
                say(f"what breaks: cozyctl diff {each['release_id']} {before}")
    if not moved:  # a script that rolls back must notice that callers still get the same release
        return fail(f"{'; '.join(stays)}. See: cozyctl tags {endpoint} --history", EXIT_FAILED, as_json=as_json, code="conflict")
    for text in stays:
        say(text)
    if as_json:
        print_json({"data": moved})
    elif is_undone:
        say(_undo(endpoint, tag))
    return 0


@click.command("diff", cls=ApiVerb, short_help="Show what a release changes for callers.")
@click.argument("old", metavar=RELEASE)
@click.argument("new", metavar=RELEASE)
@url_option
@json_option
def diff(old: str, new: str, url: str, as_json: bool) -> int:
    """Show what changes for callers from one release to another, and what breaks them."""
    api = Api(url)
    ids = [release_named(api, each) for each in (old, new)]
    found = api.get(api_path("releases", ids[0], "diff", ids[1]))
    if as_json:
        print_json(found)
        return 0
    for each in found["changes"]:
        word = "BREAKS " if each["breaking"] else "       "
        place = "" if each["side"] == "function" else f" {each['side']} {each['pointer'] or '(as a whole)'}"
        what = f"[env] {each['pointer']}" if each["side"] == "env" else f"{each['function']}{place}"
        print_line(f"{word}{what}: {each['text']}")
    if not found["changes"]:
        say("nothing changes for callers")
    elif found["breaking"]:
        say(f"to promote it anyway: cozyctl promote {found['to']} --breaking")
    return 0


@releases.command("show", cls=ApiVerb)
@click.argument("release", metavar=RELEASE)
@url_option
@json_option
def show(release: str, url: str, as_json: bool) -> int:
    """Show one release, and its gate results."""
    api = Api(url)
    release_id = release_named(api, release)
    found, gates = api.get(api_path("releases", release_id)), api.get(api_path("releases", release_id, "gates"))["data"]
    if as_json:
        print_json({**found, "gates": gates})
        return 0
    print_line(f"{found['release_id']} of {found['owner']}/{found['endpoint']}, {age(time.time() - found['created_at'])} ago")
    for name, value in (
        ("message", found["message"]),
        ("source", found["source"]),
        ("functions", ", ".join(found["functions"])),
        ("tags", ", ".join(found["tags"]) or "none"),
        ("deleted", f"{age(time.time() - found['deleted_at'])} ago" if "deleted_at" in found else ""),
    ):
        if value:
            print_line(f"{name + ':':<10} {value}")
    print_results(gates)
    return 0


@releases.command("rm", cls=ApiVerb)
@click.argument("releases", nargs=-1, required=True, metavar="RELEASE...")
@url_option
@json_option
def remove(releases: tuple[str, ...], url: str, as_json: bool) -> int:
    """Delete releases with their code, environment, image and build logs. A release stays while a tag, a canary, shadow
    runs or a run needs it. Its runs and the history of tags stay readable.
    """
    api = Api(url)
    removed = []
    for release_id in list(dict.fromkeys(release_named(api, each) for each in releases)):
        removed.append(api.delete(api_path("releases", release_id)))
        if not as_json:
            _tell_removed(removed[-1])
    if as_json:
        print_json({"data": removed})
    return 0


@releases.command("prune", cls=ApiVerb)
@click.argument("endpoint", required=False, metavar="[OWNER/ENDPOINT]")
@click.option("--keep", type=click.IntRange(0, MAX_KEEP), required=True, metavar="N", help="How many unused ones of each endpoint stay.")
@click.option("--dry-run", is_flag=True, help="Say which would go, and delete none.")
@url_option
@json_option
def prune(endpoint: str | None, keep: int, dry_run: bool, url: str, as_json: bool) -> int:
    """Delete old releases of each endpoint. Releases in use stay, and so does the one that a rollback would return to. Of the others,
    the N newest stay: with --keep 2 that is two besides those. 0 deletes all others."""
    owner, name = split_endpoint(endpoint)
    found = Api(url).post("/v1/releases/prune", {"keep": keep, "owner": owner, "endpoint": name, "dry_run": dry_run})
    if as_json:
        print_json(found)
        return 0
    for each in found["data"]:
        if dry_run:
            print_line(each["release_id"])
        else:
            _tell_removed(each)
    count = len(found["data"])
    if not count:
        say("nothing to delete")
    elif dry_run:
        say(f"{count} would be deleted; run it without --dry-run to delete them")
    else:
        say(f"{count} deleted, {bytes_of(found['freed_bytes'])} freed")
    return 0


def _targets(api: Api, release: str, functions: tuple[str, ...]) -> list[dict[str, Any]]:
    """What to point at: owner, endpoint, function and release_id of each function."""
    if "/" in release:
        path, _, tag = release.partition(":")
        owner, name, function = split_function(path)
        functions = (*functions, function) if function else functions
        wanted = tag or "dev"
        there = api.get("/v1/tags", owner=owner, endpoint=name)["data"]
        found = [each for each in there if each["tag"] == wanted]
        if not found:
            raise no_tag(api, owner, name, wanted, there)
    else:
        shown = api.get(api_path("releases", release_named(api, release)))
        found = [{**shown, "function": name} for name in shown["functions"]]
    known = [each["function"] for each in found]
    for name in functions:
        if name not in known:
            raise ApiError(f"{release} has no function {name!r}.{did_you_mean(name, known)}", EXIT_NOT_FOUND, "not_found")
    return [each for each in found if not functions or each["function"] in functions]


def _undo(endpoint: str, tag: str) -> str:
    return f"undo with: cozyctl rollback {endpoint}" + (f" --tag {tag}" if tag != "prod" else "")


def _is_forth(history: list[dict[str, Any]], release_id: str) -> bool:
    """Whether a move to this release goes to one that the tag first pointed at later than at today's, so undoes a rollback.
    `history`: newest move first."""
    oldest_first = [old["release_id"] for old in reversed(history)]
    return oldest_first.index(release_id) > oldest_first.index(history[0]["release_id"])


def _breaks_callers(api: Api, tag: dict[str, Any], release_id: str) -> bool:
    """Whether a move of the tag to this release breaks callers of its function. False when that is not known: it must stop no rollback."""
    try:
        changes = api.get(api_path("releases", tag["release_id"], "diff", release_id))["changes"]
    except ApiError:
        return False
    return any(each["breaking"] and each["function"] == tag["function"] for each in changes)


def _end_canaries(api: Api, tags: list[dict[str, Any]], *, as_json: bool) -> int:
    ended = []
    for each in tags:
        release_id = each["candidate"]["release_id"]
        ended.append(api.put(_tag_path(each), {"release_id": release_id, "canary": 0}))
        if not as_json:
            _tell(ended[-1])
            say(f"the canary {release_id} is ended, and the tag has not moved; --to RELEASE moves it")
    if as_json:
        print_json({"data": ended})
    return 0


def split_endpoint(text: str | None) -> tuple[str, str]:
    """OWNER/ENDPOINT as two parts; empty when nothing is given. Extra parts are an error, because ignoring them would
    do more than was asked.
    """
    if not text:
        return "", ""
    parts = text.split("/")
    if len(parts) != 2 or not all(parts):
        raise click.UsageError(f"{text!r}: expected owner/endpoint, such as local/hello")
    return parts[0], parts[1]


def _tag_path(tag: dict[str, Any]) -> str:
    return api_path("endpoints", tag["owner"], tag["endpoint"], "functions", tag["function"], "tags", tag["tag"])


def _tell_removed(removed: dict[str, Any]) -> None:
    later = "" if removed["cleared"] else "; its files are deleted when no build or worker needs them any more"
    print_line(f"{removed['release_id']} of {removed['owner']}/{removed['endpoint']} is deleted{later}")


def _tell(tag: dict[str, Any]) -> None:
    candidate = tag.get("candidate")
    share = f", and for {candidate['percent']:g}% of its runs {candidate['release_id']}" if candidate else ""
    print_line(f"{tag['owner']}/{tag['endpoint']}/{tag['function']}:{tag['tag']} is {tag['release_id']}{share}")
