"""`cozyctl init`: a complete endpoint folder from a template."""

import shlex
from pathlib import Path

import click

from gen_worker.cli.output import EXIT_USAGE, Verb, fail, json_option, print_json, say
from gen_worker.names import slugify
from gen_worker.project.templates import TEMPLATES, render_template


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
        files = render_template(template, name)
    except ValueError as exc:
        return fail(str(exc), EXIT_USAGE, as_json=as_json, code="usage")
    for path, text in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    command_line = f"cd {shlex.quote(folder)} && cozyctl {TEMPLATES[template].first_run}"
    if as_json:
        print_json({"ok": True, "folder": str(root), "files": sorted(files), "next": command_line})
    else:
        say(f"created {folder} ({', '.join(sorted(files))})")
        say(f"next: {command_line}")
    return 0
