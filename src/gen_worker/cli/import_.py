"""`cozyctl import`: converts a project written for cog, LitServe, BentoML or RunPod."""

import importlib
import shlex
from pathlib import Path

import click

from gen_worker.cli.init import source_of
from gen_worker.cli.new_folder import new_folder
from gen_worker.cli.output import EXIT_FAILED, EXIT_NOT_FOUND, EXIT_USAGE, Verb, fail, json_option, print_json, say
from gen_worker.names import slugify
from gen_worker.project.taking_over.found import TakeOverError

LIBRARIES = ("cog", "litserve", "bentoml", "runpod")


@click.command("import", cls=Verb)
@click.argument("library", type=click.Choice(LIBRARIES))
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("target", required=False, type=click.Path(path_type=Path))
@json_option
def command(library: str, folder: Path, target: Path | None, as_json: bool) -> int:
    """Convert the cog, LitServe, BentoML or RunPod project in FOLDER. The new project goes to TARGET (default: FOLDER-cozy).

    The code in FOLDER is read, never run, and copied unchanged. What could not be converted is listed.
    """
    theirs = folder.resolve()
    made = target or (folder if folder.name else theirs).with_name(f"{theirs.name}-cozy")
    try:
        name = slugify(made.resolve().name)
        if made.exists() and (not made.is_dir() or any(made.iterdir())):
            raise ValueError(f"{made} is not empty; choose a new folder: cozyctl import {library} {folder} TARGET")
        found = importlib.import_module(f"gen_worker.project.taking_over.{library}").read(theirs)
        from gen_worker.project.taking_over.writing import write

        with new_folder(made) as being_made:
            source, wheel = source_of(being_made)
            files, left = write(found, theirs, being_made, name, source)
    except TakeOverError as exc:
        return fail(f"{folder}: {exc}", EXIT_NOT_FOUND, as_json=as_json, code="not_found")
    except ValueError as exc:
        return fail(str(exc), EXIT_USAGE, as_json=as_json, code="usage")
    except OSError as exc:
        return fail(f"{made} cannot be written: {exc.strerror or exc}", EXIT_FAILED, as_json=as_json, code="folder")
    notes = [*found.notes, *left]
    following = f"cd {shlex.quote(str(made))} && cozyctl check"
    if as_json:
        print_json({"ok": True, "folder": str(made), "files": sorted([*files, *wheel]), "not_taken_over": notes, "next": following})
        return 0
    functions = ", ".join(slugify(each.name) for each in found.functions)
    say(f"created {made} ({functions}); {made / 'src'} has your code, unchanged")
    if notes:
        say("not converted:")
        for note in notes:
            say(f"  - {note}")
    say(f"next: {following}")
    return 0
