"""`[env]` of cozy.toml: which variables it takes, and which look like secrets."""

from pathlib import Path

import msgspec
import pytest

import gen_worker.settings as settings
from gen_worker.project.cozy_toml import CozyTomlError, load_cozy_toml
from gen_worker.project.variables import looks_secret, secret_warnings, variable_problem


def test_what_gen_worker_reads_itself_is_refused() -> None:
    """Else a line of cozy.toml would have an effect or none, by whether it was read before the settings were."""
    kinds = [kind for name in settings.__all__ if isinstance(kind := getattr(settings, name), type) and issubclass(kind, msgspec.Struct)]
    names = [field.encode_name.upper() for kind in kinds for field in msgspec.structs.fields(kind)]
    assert len(names) > 50
    assert [name for name in names if not variable_problem(name, "x")] == []


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("WORKER_DEVICE", "cpu", "gen-worker or the platform reads it itself"),
        ("TENSORHUB_CACHE_DIR", "/x", "gen-worker or the platform reads it itself"),
        ("worker_id", "x", "gen-worker or the platform reads it itself"),
        ("PATH", "/bin", "the system or Python reads it"),
        ("LD_PRELOAD", "x.so", "the system or Python reads it"),
        ("PYTHONPATH", "src", "PYTHONPATH=... cozyctl dev"),
        ("MY-NAME", "x", "a variable's name has 1 to 64"),
        ("1ST", "x", "a variable's name has 1 to 64"),
        ("", "x", "a variable's name has 1 to 64"),
        ("N" * 65, "x", "a variable's name has 1 to 64"),
        ("THREADS", 4, 'Write: THREADS = "4"'),
        ("DEBUG", True, 'Write: DEBUG = "true"'),
        ("LIST", ["a"], "must be a string"),
        ("TEXT", "a\0b", "NUL"),
        ("TEXT", "x" * 8193, "8193 characters"),
    ],
)
def test_what_cannot_be_a_variable_says_why(name: str, value: object, says: str) -> None:
    assert says in variable_problem(name, value)


@pytest.mark.parametrize(
    "name",
    [
        "MODE",
        "mode",
        "PATH_TO_DATA",
        "HOMEPAGE",
        "_X",
        "OMP_NUM_THREADS",
        "HF_HUB_DISABLE_PROGRESS_BARS",
        "MALLOC_ARENA_MAX",
        "TZ",
        "N" * 64,
    ],
)
def test_other_names_are_taken(name: str) -> None:
    assert not variable_problem(name, "")


def test_cozy_toml_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "cozy.toml"
    head = 'schema_version = 1\nname = "a"\nmain = "a.main"\ngen_worker = ">=0.2.0"\n[env]\nMODE = "warm"\n'
    file.write_text(head)
    assert load_cozy_toml(file).env == {"MODE": "warm"}
    file.write_text(f"{head}THREADS = 4\nWORKER_ID = 'x'\n")
    with pytest.raises(CozyTomlError) as caught:
        load_cozy_toml(file)
    assert [text.partition(": [env]")[0] for text in caught.value.each] == ["cozy.toml:7", "cozy.toml:8"]


@pytest.mark.parametrize(
    ("name", "value", "is_secret"),
    [
        ("OPENAI_API_KEY", "x", True),
        ("db_password", "x", True),
        ("DATABASE_URL", "postgres://me:hunter2@db/x", True),
        ("SETTING", "hf_abcdefghijklm0nopqrst", True),
        ("SETTING", "AKIA" + "A" * 16, True),
        ("OPENAI_API_KEY", "", False),
        ("TOKENIZERS_PARALLELISM", "false", False),
        ("KEYBOARD", "qwerty", False),
        ("MODEL", "hf-internal-testing/tiny-random-gpt2", False),
        ("NAME", "risk_management_system_number_1", False),
        ("MAX_TOKENS", "512", False),
        ("URL", "https://example.org/a:b@c", False),
    ],
)
def test_what_looks_like_a_secret(name: str, value: str, is_secret: bool) -> None:
    assert looks_secret(name, value) is is_secret
    told = list(secret_warnings({name: value}, "hello"))
    assert bool(told) is is_secret
    assert not value or value not in "".join(told) or value == "x"
