"""`cozyctl check`: all that is wrong with an endpoint folder, and how to mend it."""

from pathlib import Path

import click

from gen_worker.cli.output import EXIT_FAILED, folder_argument, json_option, print_json, say
from gen_worker.project.build_contract import check_build
from gen_worker.project.discovery import discover


@click.command("check")
@folder_argument
@json_option
@click.option("--require-uv-lock", is_flag=True, help="Count a missing uv.lock as an error.")
def command(folder: str, as_json: bool, require_uv_lock: bool) -> int:
    """Check FOLDER: its files, cozy.toml, its Dockerfile, the build of torch, and every marked function."""
    root = Path(folder)
    result = check_build(root, require_uv_lock=require_uv_lock)
    errors, warnings, functions = list(result.errors), list(result.warnings), []
    try:
        found = discover(root, with_stand_ins=True)
    except ValueError as exc:
        errors += [line for line in [str(exc)] if line not in errors]
    else:
        functions = [spec.name for spec in found.specs]
        if not functions:
            errors.append(f"no function marked with @worker_function() in {found.project.main}")
        warnings += [f"'{package}' is declared but not installed here, so its use at import was not tried" for package in found.stood_in]
    if as_json:
        print_json({"ok": not errors, "errors": errors, "warnings": warnings, "functions": functions})
        return EXIT_FAILED if errors else 0
    for warning in warnings:
        say(f"warning: {warning}")
    for error in errors:
        say(f"error: {error}")
    if errors:
        say(f"{len(errors)} {'error' if len(errors) == 1 else 'errors'}; mend them and run again: cozyctl check {folder}")
        return EXIT_FAILED
    say(f"ok: {', '.join(functions)}. Next: cozyctl dev, or cozyctl build")
    return 0
