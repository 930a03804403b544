"""What the documentation site has besides the files in docs/: reference pages made from the code, and links into the repository."""

import inspect
import os
import posixpath
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))
from reference_pages import settings_page

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT / "build/site-assets"  # `scripts/site-assets` brings them
SCRIPTS = ("mermaid.min.js", "iframe-worker.js")
ELSEWHERE = {  # pages whose files lie outside of docs/, with their place in the site
    "gen-orchestrator/docs/http_api.md": "reference/platform-api.md",
    "gen-orchestrator/docs/worker_wire_protocol.md": "reference/wire-protocol.md",
    "CONTRIBUTING.md": "reference/contributing.md",
}
SOURCES: dict[str, str] = {}
MODULES = ("gen_worker", "gen_worker.errors", "gen_worker.client", "gen_worker.tasks")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """A page of the menu that is not written yet is left out."""
    made = {"reference/python.md", "reference/cli.md", "reference/openapi.md", "reference/settings.md", *ELSEWHERE.values()}
    for section in config.nav or []:
        for title, pages in section.items():
            section[title] = [page for page in pages if page in made or (Path(config.docs_dir) / page).exists()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    made = {"python": python_page, "cli": cli_page, "openapi": openapi_page, "settings": settings_page}
    for name, make in made.items():
        path = f"reference/{name}.md"
        files.append(File.generated(config, path, content=make()))
    for original, path in ELSEWHERE.items():
        files.append(File.generated(config, path, content=(ROOT / original).read_text()))
    for name in SCRIPTS:
        for path in (ASSETS / name, ASSETS / f"{name}.LICENSE.txt"):
            if path.exists():
                files.append(File.generated(config, f"assets/site/{path.name}", abs_src_path=str(path)))
    return files


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """A page with a diagram loads our copy of mermaid. The theme would fetch one from the network."""
    if 'class="mermaid"' not in output:
        return output
    up = "../" * page.file.dest_uri.count("/")
    return output.replace("</body>", f'<script src="{up}assets/site/mermaid.min.js"></script></body>')


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links that lead out of docs/ lead to the page in the site, or name the file in the repository; one that leads nowhere is an error."""
    docs, here = Path(config.docs_dir).resolve(), page.file.src_uri
    original = next((name for name, path in ELSEWHERE.items() if path == here), None)
    folder = (ROOT / original).parent if original else (docs / here).parent

    def shown(found: re.Match[str]) -> str:
        text, (target, mark, anchor) = found[1], found[2].partition("#")
        place = (folder / target).resolve()
        if not target or re.match(r"[a-z]+:", target) or (original is None and place.is_relative_to(docs)):
            return found[0]
        inside = place.relative_to(docs).as_posix() if place.is_relative_to(docs) else None
        if place.is_relative_to(ROOT):
            inside = ELSEWHERE.get(place.relative_to(ROOT).as_posix(), inside)
        if inside is not None and inside.endswith(".md"):
            return f"[{text}]({posixpath.relpath(inside, posixpath.dirname(here))}{mark}{anchor})"
        if not place.is_relative_to(ROOT) or not place.exists():
            raise PluginError(f"{page.file.src_uri}: the link {found[0]} leads nowhere")
        return f"{text} (`{place.relative_to(ROOT)}`)"

    if not (ASSETS / "mermaid.min.js").exists():
        markdown = markdown.replace("```mermaid", "```text")  # without it a diagram is shown as its source
    text = re.sub(r"\[([^\]]+)\]\(([^)\s]+)\)", shown, markdown)
    SOURCES[here] = text
    return text


def on_post_build(config: MkDocsConfig) -> None:
    """Beside each page lies its Markdown: llms.txt names it, and programs read it more easily than HTML."""
    for path, text in SOURCES.items():
        (Path(config.site_dir) / path).write_text(text)


def python_page() -> str:
    """The public names of each module, with their docstrings."""
    parts = ["# Python reference\n\nMade from the docstrings of the code.\n"]
    for name in MODULES:
        module = __import__(name, fromlist=["x"])
        public = getattr(module, "__all__", None) or [
            key for key, value in vars(module).items() if not key.startswith("_") and getattr(value, "__module__", "") == name
        ]
        parts.append(f"## {name}\n\n{inspect.getdoc(module) or ''}\n")
        for key in sorted(public):
            parts += _described(f"{name}.{key}", getattr(module, key))
    return "\n".join(parts)


def _described(path: str, value: Any) -> Iterator[str]:
    key = path.rpartition(".")[2]
    if not callable(value):
        return
    yield f"### {key} {{ #{path} }}\n\n{_block(_signature(key, value))}\n{_text(value)}\n"
    if inspect.isclass(value):
        rows = []
        for name, member in sorted(vars(value).items()):
            if name.startswith("_") or not (callable(member) or isinstance(member, property | classmethod | staticmethod)):
                continue
            plain = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            shown = f"{key}.{name}" if isinstance(plain, property) else _signature(f"{key}.{name}", plain)
            text = _text(plain)
            if text:
                rows.append(f"{_block(shown)}\n{text}\n")
        yield "\n".join(rows)


def _block(code: str) -> str:
    return f"```text\n{code}\n```\n"


def _signature(key: str, value: Any) -> str:
    try:
        found = str(inspect.signature(value))
    except (TypeError, ValueError):
        return key
    return f"{key}{re.sub(r'<[^>]+>', '...', found)}".replace("gen_worker.", "")


def _text(value: Any) -> str:
    """The docstring with what Markdown would take for HTML made plain; none for one that is inherited from a library."""
    text = inspect.getdoc(value) or ""
    return text.replace("<", "&lt;") if getattr(value, "__doc__", None) else ""


PROGRAMS = ("gen_worker.discover", "gen_worker.testing.http_runner", "gen_worker.testing.mock_orchestrator")


def cli_page() -> str:
    """Each command of cozyctl and gen-orchestrator with its help, and that of each module that is run as a program."""
    from gen_orchestrator.main import main as orchestrator
    from gen_worker.cli.verbs import group

    parts = ["# Commands\n\nMade from the commands themselves: `cozyctl COMMAND --help` prints the same.\n"]
    for name, program in (("cozyctl", group), ("gen-orchestrator", orchestrator)):
        context = click.Context(program, info_name=name)
        for verb in program.list_commands(context):
            command = program.get_command(context, verb)
            if command is not None:
                parts += _command(command, context, verb, "##")
    for module in PROGRAMS:
        command_line = [sys.executable, "-m", module, "--help"]
        done = subprocess.run(command_line, env={**os.environ, "COLUMNS": "100"}, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode == 0:
            parts.append(f"## python -m {module}\n\n{_block(done.stdout.strip())}")
    return "\n".join(parts)


def _command(command: click.Command, above: click.Context, name: str, heading: str) -> Iterator[str]:
    context = click.Context(command, info_name=name, parent=above, max_content_width=100, terminal_width=100)
    yield f"{heading} {context.command_path}\n\n{_block(command.get_help(context))}"
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            inner = command.get_command(context, below)
            if inner is not None:
                yield from _command(inner, context, below, "###")


def openapi_page() -> str:
    """The routes of both servers, from the documents that they serve."""
    from gen_orchestrator.api.own_paths import own_paths
    from gen_worker.dev.own_routes import own_routes

    parts = ["# Routes\n\nMade from the OpenAPI documents, which each server gives at `/openapi.json` with its functions.\n"]
    for title, paths in (("The dev runner", own_routes()), ("The platform", own_paths())):
        rows = [
            f"| `{method.upper()}` | `{path}` | {operation.get('summary', '')} |"
            for path, methods in sorted(paths.items())
            for method, operation in methods.items()
            if isinstance(operation, dict)
        ]
        parts.append(f"## {title}\n\n| | route | |\n|---|---|---|\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)
