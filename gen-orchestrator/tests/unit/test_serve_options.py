"""Wrong options of `gen-orchestrator serve` are named, with what was expected."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from gen_orchestrator.main import main


@pytest.mark.parametrize(
    ("arguments", "env", "words"),
    [
        ([], {}, "--data DIR (or GEN_ORCHESTRATOR_DATA) is missing"),
        (["--data", "d"], {"GEN_ORCHESTRATOR_DRAIN_S": "-1"}, "GEN_ORCHESTRATOR_DRAIN_S=-1.0: expected seconds from 0"),
        (["--data", "d"], {"GEN_ORCHESTRATOR_KEEP_RUNS_S": "a week"}, "GEN_ORCHESTRATOR_KEEP_RUNS_S='a week': expected seconds from 60"),
        (["--data", "d"], {"GEN_ORCHESTRATOR_PUBLIC_URL": "example"}, "expected an address such as https://host"),
        (["--data", "d", "--worker-listen", "0.0.0.0:80"], {}, "add --advertise HOST"),
        (["--data", "d", "--listen", "127.0.0.1"], {}, "expected HOST:PORT"),
        (
            ["--data", "d", "--listen", "127.0.0.1:0", "--worker-listen", "127.0.0.1:0", "--store", "mysql://x:secret@y/z"],
            {},
            "expected postgresql://USER@HOST/DATABASE",
        ),
        (["--data", "d", "."], {}, "no cozy.toml in"),
    ],
)
def test_what_is_wrong_is_named(
    arguments: list[str],
    env: dict[str, str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["serve", *arguments], env=env)
    said = result.output + capfd.readouterr().err
    assert result.exit_code in (1, 2)
    assert words in " ".join(said.split()), said
    assert "secret" not in said
