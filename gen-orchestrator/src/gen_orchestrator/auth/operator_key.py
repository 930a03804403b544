"""The first key of a platform that asks for keys: somebody has to create the others."""

from pathlib import Path

from gen_orchestrator.auth.keys import Keys
from gen_orchestrator.domain.access import ALL_OWNERS, EVERYBODY, SCOPES
from gen_worker.log import Log


def keep_operator_key(path: Path, keys: Keys, log: Log) -> None:
    """Have a valid key with all scopes in this file, for whoever can read the data folder. Blocks; `OSError` when it cannot be written."""
    if path.exists() and keys.verify(path.read_text().strip()) is not None:
        return
    _, text = keys.create(EVERYBODY, ALL_OWNERS, "operator", SCOPES)
    path.unlink(missing_ok=True)
    path.touch(0o600)
    path.write_text(text + "\n")
    log.info("keys.operator", path=str(path))
