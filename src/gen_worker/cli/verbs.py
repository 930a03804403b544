"""The command and its verbs; a verb's module is imported when the verb is used."""

import importlib
import re
import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NoReturn

import click
import msgspec

from gen_worker import __version__
from gen_worker.cli.output import EXIT_BROKEN_PIPE, EXIT_INTERRUPTED, interrupted
from gen_worker.cli.sections import SECTIONS, in_sections
from gen_worker.leaving import Interruption, finish, interrupted_once
from gen_worker.log import Log
from gen_worker.names import did_you_mean
from gen_worker.project.stdout import Stdout, silence

# verb -> (module, help)
VERBS = {
    "init": ("gen_worker.cli.init", "Start a new endpoint from a template."),
    "check": ("gen_worker.cli.check", "Say what is missing or wrong in an endpoint folder."),
    "discover": ("gen_worker.cli.discover", "Print the manifest of the endpoint in this folder."),
    "dev": ("gen_worker.cli.dev", "Serve the functions of this folder over HTTP."),
    "models": ("gen_worker.cli.models", "Plan, fetch, list and check models."),
    "build": ("gen_worker.cli.build", "Build the worker image of this folder."),
    "run": ("gen_worker.cli.run", "Run one function once, here."),
    "import": ("gen_worker.cli.import_", "Convert a project of cog, LitServe, BentoML or RunPod."),
    "client": ("gen_worker.cli.client", "Write typed clients for callers of functions."),
    "explain": ("gen_worker.cli.explain", "Say what an error code means, and what to do."),
    "completion": ("gen_worker.cli.completion", "Print the script for completion in bash, zsh or fish."),
}
MAX_SHORT_HELP = 200  # the first sentence of a verb's help is shown whole
ALIASES = {"doctor": "check", "call": "invoke"}
ADDED_VERBS = "gen_worker.cli"  # entry points by which other distributions add verbs; gen-orchestrator adds `up`
# Verbs of another distribution, and which one to install for them.
ELSEWHERE = {name: "gen-orchestrator" for section in SECTIONS.values() for name in section if name not in VERBS and name not in ALIASES}


def verbs() -> dict[str, str | EntryPoint]:
    """Every verb, in the order in which they are shown: the module of one of ours, the entry point of an added one."""
    found: dict[str, str | EntryPoint] = {point.name: point for point in entry_points(group=ADDED_VERBS)}
    found |= {name: module for name, (module, _) in VERBS.items()}
    return {name: found[name] for section in in_sections(found).values() for name in section}


def _verb_of(name: str) -> str:
    """The verb that a name stands for. `doctor` is an alias of `check`, unless gen-orchestrator is installed: its `doctor` does more."""
    return name if name in ALIASES and name in verbs() else ALIASES.get(name, name)


class Verbs(click.Group):
    """Loads verbs on use, and suggests the nearest one to a mistyped name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(verbs())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = _verb_of(cmd_name)
        if name in VERBS:  # the usual case need not look for installed distributions
            ours: click.Command = importlib.import_module(VERBS[name][0]).command
            return ours
        found = verbs().get(name)
        added: click.Command | None = found.load() if isinstance(found, EntryPoint) else None
        return added

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        name = _verb_of(args[0]) if args else ""
        if name and not name.startswith("-") and name not in VERBS and name not in (known := verbs()):
            if name in ELSEWHERE:
                ctx.fail(
                    f"the command {name!r} comes with {ELSEWHERE[name]}, which is not installed; in a clone: pip install ./gen-orchestrator"
                )
            more = "" if "up" in known else "; more come with gen-orchestrator, which is not installed"
            ctx.fail(f"no command {args[0]!r}.{did_you_mean(args[0], known)} Commands: {', '.join(known)}{more}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        known = verbs()
        width = max(map(len, known))
        for title, names in in_sections(known).items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), _short_help(name, known[name])) for name in names])
        if "up" not in known:
            formatter.write_paragraph()
            formatter.write_text("The platform's commands come with gen-orchestrator. In a clone: pip install ./gen-orchestrator")


def _short_help(name: str, verb: str | EntryPoint) -> str:
    if isinstance(verb, EntryPoint):
        text: str = verb.load().get_short_help_str(MAX_SHORT_HELP)
        return text
    return VERBS[name][1]


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cozyctl")
def group() -> None:
    """Write, try and ship functions for AI inference."""


def perform(argv: list[str] | None = None) -> NoReturn:
    """Perform the verb that the arguments name, and end the process."""
    arguments = sys.argv[1:] if argv is None else argv
    stdout = Stdout()
    interruption = Interruption()
    try:
        with interrupted_once() as interruption:
            status: Any = group.main(args=arguments, prog_name="cozyctl", standalone_mode=False, obj=stdout)
    except (click.exceptions.Abort, KeyboardInterrupt):  # before or after the verb's own work
        interrupted("interrupted", as_json="--json" in arguments)
        sys.exit(finish(interruption.status, Log()))
    except click.ClickException as exc:
        _show_usage_error(exc, stdout, as_json="--json" in arguments)
        sys.exit(exc.exit_code)
    except BrokenPipeError:
        silence()
        sys.exit(EXIT_BROKEN_PIPE)
    status = status if isinstance(status, int) else 0
    sys.exit(finish(interruption.status if status == EXIT_INTERRUPTED else status, Log()))


def _show_usage_error(exc: click.ClickException, stdout: Stdout, *, as_json: bool) -> None:
    if isinstance(exc, click.BadParameter) and exc.param is not None and isinstance(exc.param.type, click.Choice):
        given = re.match(r"'(.+?)' is not one of", exc.message)
        if given:
            near = did_you_mean(given[1], map(str, exc.param.type.choices))
            exc = click.BadParameter(exc.message + near, ctx=exc.ctx, param=exc.param, param_hint=exc.param_hint)
    exc.show()
    if as_json:
        body = {"ok": False, "code": "usage", "error": exc.format_message()}
        stdout.write(msgspec.json.format(msgspec.json.encode(body), indent=2) + b"\n")
