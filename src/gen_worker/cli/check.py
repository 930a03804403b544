"""`cozyctl check`: everything that is wrong with an endpoint folder, and how to fix it."""

import os
from pathlib import Path

import click
import msgspec

from gen_worker.cli.folder import folder_flag, folder_option
from gen_worker.cli.output import EXIT_FAILED, EXIT_NOT_FOUND, Verb, fail, json_option, print_json, say
from gen_worker.project.apart import discover_apart
from gen_worker.project.build_contract import check_build
from gen_worker.project.cozy_toml import CozyTomlError, find_cozy_toml
from gen_worker.project.validation import version_problem


@click.command("check", cls=Verb)
@folder_option(positional=True)
@json_option
@click.option("--require-uv-lock", is_flag=True, help="Treat a missing uv.lock as an error.")
def command(folder: str, as_json: bool, require_uv_lock: bool) -> int:
    """Check an endpoint: its files, cozy.toml, its Dockerfile, the build of torch, where gen-worker comes from, every marked function."""
    root = Path(folder)
    if find_cozy_toml(root, os.environ) is None and not (root / "pyproject.toml").exists():
        start = "go to the project's folder, or start one: cozyctl init my-worker"
        nothing = f"no endpoint in {root.resolve()}: there is neither a cozy.toml nor a pyproject.toml; {start}"
        return fail(nothing, EXIT_NOT_FOUND, as_json=as_json, code="not_found")
    found = examine(root, require_uv_lock=require_uv_lock)
    errors, warnings, functions = found.errors, found.warnings, found.functions
    again = f"cozyctl check{folder_flag(folder)}"
    if as_json:
        next_command = again if errors else f"cozyctl dev{folder_flag(folder)}"
        print_json({"ok": not errors, "errors": errors, "warnings": warnings, "functions": functions, "next": next_command})
        return EXIT_FAILED if errors else 0
    for warning in warnings:
        say(f"warning: {warning}")
    for error in errors:
        say(f"error: {error}")
    if errors:
        say(f"{len(errors)} {'error' if len(errors) == 1 else 'errors'}. Fix {'it' if len(errors) == 1 else 'them'}, then run: {again}")
        return EXIT_FAILED
    say(f"ok: {', '.join(functions)}. Next: cozyctl dev{folder_flag(folder)}, or cozyctl build{folder_flag(folder)}")
    return 0


class Findings(msgspec.Struct):
    """Errors and warnings about an endpoint folder, and the functions found in it."""

    errors: list[str]
    warnings: list[str]
    functions: list[str]


def examine(root: Path, *, require_uv_lock: bool = False) -> Findings:
    """Run all checks of `cozyctl check`."""
    result = check_build(root, require_uv_lock=require_uv_lock)
    errors, warnings, functions = list(result.errors), list(result.warnings), list[str]()
    try:
        if (problem := version_problem(root, os.environ)) and problem not in errors:
            errors.append(problem)
        discovered = discover_apart(root, os.environ)
    except CozyTomlError as exc:
        errors += [text for text in exc.each if text not in errors]
    except ValueError as exc:
        errors += [line for line in [str(exc)] if line not in errors]
    else:
        functions = list(discovered.functions)
        known = discovered.problem in errors or set(discovered.problem.splitlines()) <= set(errors)
        errors += [discovered.problem] if discovered.problem and not known else []
        warnings += [
            f"'{package}' is declared but not installed here, so its use at import was not tried" for package in discovered.stood_in
        ]
        warnings += (*discovered.slow_patterns, *discovered.secret_variables)
    return Findings(errors, warnings, functions)
