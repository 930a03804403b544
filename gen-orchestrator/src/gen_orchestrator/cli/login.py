"""`cozyctl login|logout|profile`: which platform the other verbs talk to, and with which key."""

import os
import sys

import click

from gen_orchestrator.cli.api import Api, ApiError
from gen_worker.cli.output import EXIT_AUTH, EXIT_NOT_FOUND, EXIT_USAGE, Verb, fail, json_option, print_json, print_line, say
from gen_worker.client.profiles import Profile, ProfileError, Profiles, parse

profile_option = click.option("--profile", "chosen", metavar="NAME[/PROFILE]", help="Which profile; the one in use by default.")


@click.command("login", cls=Verb)
@click.option("--url", metavar="URL", help="The platform. By default the profile's own, else http://127.0.0.1:8080.")
@profile_option
@json_option
def login(url: str | None, chosen: str | None, as_json: bool) -> int:
    """Store the key of a platform for the other commands. The key is asked for, or read from stdin: cozyctl login --url URL < key"""
    profiles = Profiles.of_user(os.environ)
    try:
        name, profile = parse(chosen) if chosen else profiles.current()
    except ProfileError as exc:
        return fail(str(exc), EXIT_USAGE, as_json=as_json, code="usage")
    before = profiles.read(name, profile)
    where = (url or (before.orchestrator_url if before else "") or "http://127.0.0.1:8080").rstrip("/")
    key = click.prompt("key", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.read()
    key = key.strip()
    try:
        me = Api(where, key).get("/v1/me")
    except ApiError as exc:
        if key and exc.status == EXIT_AUTH and exc.code == "auth":  # the platform's hint is to log in, which is what this is
            text = f"{where} refused this key: it is unknown, expired, or revoked. Nothing is stored"
            return fail(text, exc.status, as_json=as_json, code=exc.code)
        return exc.report(as_json=as_json)
    values = Profile(hub_url=where, builder_url=where, orchestrator_url=where, tenant_id=me["owner"], token=key)
    path = profiles.write(name, profile, values)
    profiles.use(name, profile)
    if as_json:
        print_json({**me, "url": where, "profile": f"{name}/{profile}"})
        return 0
    print_line(f"{where} as {me['owner']}, who may {', '.join(me['scopes'])}")
    say(f"saved as {name}/{profile} in {path}; undo with: cozyctl logout")
    return 0


@click.command("logout", cls=Verb)
@profile_option
@json_option
def logout(chosen: str | None, as_json: bool) -> int:
    """Delete the key of a profile. The key stays valid: revoke it with `cozyctl keys revoke`."""
    return _forget(chosen, as_json=as_json)


@click.group("profile")
def command() -> None:
    """List, show, switch and delete profiles."""


@command.command("current", cls=Verb)
@json_option
def current(as_json: bool) -> int:
    """Show the profile in use."""
    profiles = Profiles.of_user(os.environ)
    try:
        name, profile = profiles.current()
    except ProfileError as exc:
        return fail(str(exc), EXIT_USAGE, as_json=as_json, code="usage")
    found = profiles.read(name, profile) or Profile()
    if as_json:
        print_json({"profile": f"{name}/{profile}", "url": found.orchestrator_url, "owner": found.tenant_id})
    else:
        print_line(f"{name}/{profile}  {found.orchestrator_url or '(no address: cozyctl login)'}  {found.tenant_id}".rstrip())
    return 0


@command.command("list", cls=Verb)
@json_option
def list_profiles(as_json: bool) -> int:
    """List all profiles, and say which one is in use."""
    profiles = Profiles.of_user(os.environ)
    try:
        in_use = "/".join(profiles.current())
    except ProfileError:  # COZY_PROFILE names none
        in_use = ""
    rows = [(f"{name}/{profile}", profiles.read(name, profile) or Profile()) for name, profile in profiles.all()]
    if as_json:
        print_json({"data": [{"profile": name, "url": found.orchestrator_url, "owner": found.tenant_id} for name, found in rows]})
        return 0
    for name, found in rows:
        print_line(f"{name}  {found.orchestrator_url}  {found.tenant_id}".rstrip() + ("  (in use)" if name == in_use else ""))
    if not rows:
        say("none yet: cozyctl login --url URL")
    return 0


@command.command("switch", cls=Verb)
@click.argument("name", metavar="NAME[/PROFILE]")
@json_option
def switch(name: str, as_json: bool) -> int:
    """Use another profile from now on."""
    profiles = Profiles.of_user(os.environ)
    try:
        chosen = parse(name)
    except ProfileError as exc:
        return fail(str(exc), EXIT_USAGE, as_json=as_json, code="usage")
    if profiles.read(*chosen) is None:
        known = ", ".join("/".join(each) for each in profiles.all()) or "none"
        return fail(f"no profile {'/'.join(chosen)}. Profiles: {known}", EXIT_NOT_FOUND, as_json=as_json, code="not_found")
    profiles.use(*chosen)
    if as_json:
        print_json({"profile": "/".join(chosen)})
    else:
        print_line("/".join(chosen))
    return 0


@command.command("delete", cls=Verb)
@click.argument("name", metavar="NAME[/PROFILE]")
@json_option
def delete(name: str, as_json: bool) -> int:
    """Delete a profile with its key."""
    return _forget(name, as_json=as_json)


def _forget(chosen: str | None, *, as_json: bool) -> int:
    profiles = Profiles.of_user(os.environ)
    try:
        name, profile = parse(chosen) if chosen else profiles.current()
        profiles.delete(name, profile)
    except ProfileError as exc:
        return fail(str(exc), EXIT_NOT_FOUND, as_json=as_json, code="not_found")
    if as_json:
        print_json({"profile": f"{name}/{profile}"})
    else:
        print_line(f"deleted the profile {name}/{profile}")
    return 0
