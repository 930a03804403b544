"""`cozyctl init`: writes a complete endpoint folder from a template."""

import shlex
from pathlib import Path

import click

from gen_worker.cli.new_folder import new_folder
from gen_worker.cli.output import EXIT_FAILED, EXIT_USAGE, Verb, fail, json_option, print_json, say
from gen_worker.names import slugify
from gen_worker.project.origin import own_origin
from gen_worker.project.templates import TEMPLATES, Source, render_template
from gen_worker.project.wheel import write_wheel


@click.command("init", cls=Verb)
@click.argument("folder")
@click.option("--template", type=click.Choice(sorted(TEMPLATES)), default="hello", show_default=True)
@json_option
def command(folder: str, template: str, as_json: bool) -> int:
    """Start a new endpoint in FOLDER, which must be new or empty. Its last part becomes the endpoint's name."""
    root = Path(folder)
    try:
        name = slugify(root.resolve().name)
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise ValueError(f"{folder} is not empty; choose a new folder")
        with new_folder(root) as being_made:
            source, made = source_of(being_made)
            files = render_template(template, name, source)
            for path, text in files.items():
                target = being_made / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)
    except ValueError as exc:
        return fail(str(exc), EXIT_USAGE, as_json=as_json, code="usage")
    except OSError as exc:
        return fail(f"{folder} cannot be written: {exc.strerror or exc}", EXIT_FAILED, as_json=as_json, code="folder")
    names = sorted([*files, *made])
    command_line = f"cd {shlex.quote(folder)} && cozyctl {TEMPLATES[template].first_run}"
    if as_json:
        print_json({"ok": True, "folder": str(root), "files": names, "next": command_line})
    else:
        say(f"created {folder} ({', '.join(names)})")
        say(f"next: {command_line}")
    return 0


def source_of(root: Path) -> tuple[Source, list[str]]:
    """Where the project gets gen-worker from: the address that the installed one came from; if that is a folder on this
    machine, its wheel.
    """
    origin = own_origin()
    if origin.requirement:
        return Source(origin.source, origin.requirement, f"'gen-worker @ {origin.requirement}'"), []
    if not origin.local:
        return Source(), []
    wheel = write_wheel(root).name
    return Source(f'{{ path = "{wheel}" }}', wheel, wheel), [wheel]
