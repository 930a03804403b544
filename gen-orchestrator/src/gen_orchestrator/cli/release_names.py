"""How every verb finds a release: by its id, the beginning of an id, or a tag."""

import re
from typing import Any

import click

from gen_orchestrator.cli.api import Api, ApiError
from gen_worker.cli.output import EXIT_NOT_FOUND, EXIT_USAGE
from gen_worker.names import TAG_RULE, did_you_mean, is_tag

RELEASE = "RELEASE|OWNER/ENDPOINT[/FUNCTION]:TAG"
_WHOLE_ID = re.compile(r"[a-z0-9-]+-[0-9a-f]{12}")
_SHOWN = 5


def release_named(api: Api, text: str) -> str:
    """The id of the named release. An unknown name is passed to the server, which knows the nearest one."""
    if "/" in text:
        return _of_tag(api, text)
    if _WHOLE_ID.fullmatch(text):
        return text
    for deleted in (None, "true"):
        known = api.get("/v1/releases", deleted=deleted)["data"]
        # Longer than the endpoint's name, because `releases rm hello` must not mean the only release that hello happens to have.
        found = [each["release_id"] for each in known if each["release_id"].startswith(text) and len(text) > len(each["endpoint"]) + 1]
        if len(found) == 1:
            return str(found[0])
        if text in {name.rpartition(":")[2] for each in known for name in each["tags"]}:
            where = f"expected a release's id, but {text!r} is a tag"
            raise ApiError(f"{where}; write a tag behind a colon: OWNER/ENDPOINT[/FUNCTION]:{text}", EXIT_USAGE, "usage")
        if found:
            raise ApiError(f"{text!r} is the beginning of several release ids: {_some(found)}; write more characters", EXIT_USAGE, "usage")
    return text


def _of_tag(api: Api, text: str) -> str:
    path, colon, tag = text.partition(":")
    owner, name, function = split_function(path)
    if not colon:
        raise click.UsageError(f"{text!r}: expected a release, such as hello-1a2b3c4d5e6f, or a tag, such as local/hello:prod")
    if not is_tag(tag):
        raise click.UsageError(f"{text!r}: tag {tag!r}: {TAG_RULE}")
    there = api.get("/v1/tags", owner=owner, endpoint=name)["data"]
    found = [each for each in there if each["tag"] == tag and function in ("", each["function"])]
    if not found:
        functions = sorted({each["function"] for each in there})
        if function and functions and function not in functions:
            near = did_you_mean(function, functions)
            raise ApiError(f"{owner}/{name} has no function {function!r}.{near}", EXIT_NOT_FOUND, "not_found")
        raise no_tag(api, owner, name, tag, [each for each in there if function in ("", each["function"])])
    if len({each["release_id"] for each in found}) > 1:
        told = ", ".join(f"{each['function']} at {each['release_id']}" for each in found)
        raise click.UsageError(
            f"{text!r}: the functions are at several releases ({told}); name one function: {owner}/{name}/FUNCTION:{tag}"
        )
    return str(found[0]["release_id"])


def _some(texts: list[str]) -> str:
    return ", ".join(texts[:_SHOWN]) + (f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else "")


def no_tag(api: Api, owner: str, name: str, tag: str, there: list[dict[str, Any]]) -> ApiError:
    """The error for a tag that an endpoint does not have. `there`: the tags that it has, none when there is no such endpoint."""
    if there:
        tags = sorted({each["tag"] for each in there})
        near = f"{did_you_mean(tag, tags)} Tags: {', '.join(tags)}"
    elif releases := api.get("/v1/releases", owner=owner, endpoint=name)["data"]:
        near = f" Its newest release is {releases[0]['release_id']}: cozyctl promote {releases[0]['release_id']}"
    else:
        known = sorted({f"{each['owner']}/{each['endpoint']}" for each in api.get("/v1/tags")["data"]})
        near = f"{did_you_mean(f'{owner}/{name}', known)} See: cozyctl tags"
    return ApiError(f"{owner}/{name} has no tag {tag!r}.{near}", EXIT_NOT_FOUND, "not_found")


def split_function(text: str | None) -> tuple[str, str, str]:
    """OWNER/ENDPOINT[/FUNCTION] as three parts; the function is empty when all are meant."""
    if not text:
        return "", "", ""
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise click.UsageError(f"{text!r}: expected owner/endpoint or owner/endpoint/function, such as local/hello/generate")
    return parts[0], parts[1], parts[2] if len(parts) == 3 else ""
