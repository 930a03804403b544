"""Commands in the documents: their verbs and options exist."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from gen_worker.cli.verbs import group
from gen_worker.project.cozy_toml import load_cozy_toml

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "docs/llms.txt", *sorted(ROOT.glob("examples/*/README.md"))]
PAGES += [ROOT / "gen-orchestrator/README.md", *sorted(ROOT.glob("gen-orchestrator/docs/*.md"))]


def named(page: str) -> Iterator[str]:
    """Commands in blocks and in backticks."""
    for block in re.findall(r"```(?:console|sh|bash)\n(.*?)```", page, re.DOTALL):
        yield from re.findall(r"(?m)^\s*(?:\$ )?(?:.*&& )?(cozyctl (?:[^\\\n]|\\\n)*)", block)
    yield from re.findall(r"`(cozyctl [^`]+)`", page)


def problem(text: str) -> str | None:
    """What is wrong with a command; None where nothing is."""
    text = re.split(r"\s#|\s*[|&;>]|\.\.\.", text.replace("\\\n", " "))[0].strip()
    try:
        words = shlex.split(text)[1:]
    except ValueError:
        return None  # a quote that the cut above left open
    command: click.Command | None = group
    context = click.Context(group, info_name="cozyctl")
    while words and isinstance(command, click.Group) and re.fullmatch(r"[a-z]+", words[0]):
        command = command.get_command(context, words[0])
        if command is None:
            return f"{text}: no command {words[0]}"
        words = words[1:]
    known = {name for param in command.params for name in (*param.opts, *param.secondary_opts)} | {"--help"} if command else set()
    return next(
        (f"{text}: no option {word}" for word in words if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in known), None
    )


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_exist(path: Path) -> None:
    wrong = [found for text in named(path.read_text()) if (found := problem(text))]
    assert wrong == []


def test_the_page_of_cozy_toml_is_read(tmp_path: Path) -> None:
    (text,) = re.findall(r"```toml title=\"cozy.toml\"\n(.*?)```", (ROOT / "docs/cozy-toml.md").read_text(), re.DOTALL)
    (tmp_path / "cozy.toml").write_text(text)
    found = load_cozy_toml(tmp_path / "cozy.toml")
    assert found.watch[0] == "."
    assert found.function_settings["draw"]["max_attempts"] == 3
