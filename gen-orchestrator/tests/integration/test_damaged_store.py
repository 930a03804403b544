"""A store with rows that no program of ours wrote: the platform starts, names them, and serves everything else."""

import contextlib
import sqlite3
from pathlib import Path

from platform_process import PlatformProcess, write_project


def _edit(data: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(data / "store.sqlite")) as db, db:
        for statement in statements:
            assert db.execute(statement).rowcount > 0, statement


def test_damaged_rows_keep_nothing_else_from_being_served(tmp_path: Path) -> None:
    data = tmp_path / "data"
    first = PlatformProcess(write_project(tmp_path / "probe"), data)
    run_id = first.invoke("version").json()["id"]
    first.kill()
    release = "update releases set manifest = x'7b' where endpoint = 'probe'"
    _edit(
        data,
        release,
        "update runs set state = 'queued', finished_at = 0, attempt = 'many'",
        "insert into deliveries (id, run_id, moment, created_at, state, next_at, tries) "
        "select 'd', id, 'ended', 1, 'pending', 0, 'x' from runs limit 1",
        "insert into access_keys (key_id, owner, name, scopes, secret_sha256, created_at, expires_at, revoked_at) "
        "values ('k', 'o', 'n', 'x', 's', 1, 0, 0)",
    )
    other = write_project(tmp_path / "other")
    (other / "cozy.toml").write_text((other / "cozy.toml").read_text().replace('name = "probe"', 'name = "other"'))
    second = PlatformProcess(other, data)
    try:
        answered = second.http.post("/v1/local/other/version", json={})
        assert answered.status_code == 200, answered.text
        refused = second.http.post("/v1/local/probe/version", json={})
        assert (refused.status_code, "damaged" in refused.text) == (404, True), refused.text
        for path in ("/v1/runs", "/v1/releases", "/v1/tags", "/v1/status", "/v1/keys", "/openapi.json", "/docs"):
            assert second.http.get(path).status_code == 200, path
        told = second.http.get(f"/v1/runs/{run_id}")
        assert (told.status_code, "damaged" in told.text) == (500, True), told.text
        assert second.stop() == 0
        log = second.log.read_text()
        for name in ("probe", run_id, "key 'k'", "delivery 'd'"):
            assert name in log, log[-3000:]
    finally:
        second.close()
    third = PlatformProcess(tmp_path / "probe", data)
    try:
        assert third.invoke("version").status_code == 200, "its folder has the manifest, and mends the row"
    finally:
        third.close()
