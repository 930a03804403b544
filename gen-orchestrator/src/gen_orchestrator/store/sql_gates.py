# ruff: noqa: S608 - statements are put together from names of ours alone
"""The statements of golden requests, of canaries and shadows, and of what gates found, in SQLite's spelling (`?`)."""

from collections.abc import Sequence
from typing import Any

import msgspec

from gen_orchestrator.domain.canary import Candidate
from gen_orchestrator.domain.gates import GateResult, Golden
from gen_orchestrator.domain.shadow import Shadow
from gen_orchestrator.store.rows import checked, readable

GOLDEN_COLUMNS = Golden.__struct_fields__
RESULT_COLUMNS = GateResult.__struct_fields__
CANDIDATE_COLUMNS = Candidate.__struct_fields__
SHADOW_COLUMNS = Shadow.__struct_fields__

ADD_GOLDEN = f"insert into goldens ({', '.join(GOLDEN_COLUMNS)}) values ({', '.join('?' * len(GOLDEN_COLUMNS))}) on conflict do nothing"
GOLDENS = (
    f"select {', '.join(GOLDEN_COLUMNS)} from goldens where (? = '' or owner = ?) and (? = '' or endpoint = ?) "
    "order by created_at, golden_id"
)
REMOVE_GOLDEN = "delete from goldens where golden_id = ?"
FORGET_GOLDEN_RESULTS = "delete from gate_results where kind = 'golden' and subject = ?"
SAVE_RESULT = (
    f"insert into gate_results ({', '.join(RESULT_COLUMNS)}) values ({', '.join('?' * len(RESULT_COLUMNS))}) "
    "on conflict (release_id, function, kind, subject) do update set passed = excluded.passed, detail = excluded.detail, at = excluded.at"
)
RESULTS = f"select {', '.join(RESULT_COLUMNS)} from gate_results where release_id = ? order by kind, function, subject"

SET_CANDIDATE = (
    f"insert into candidates ({', '.join(CANDIDATE_COLUMNS)}) values ({', '.join('?' * len(CANDIDATE_COLUMNS))}) "
    "on conflict (owner, endpoint, function, tag) do update set release_id = excluded.release_id, percent = excluded.percent, "
    "since = excluded.since"
)
DROP_CANDIDATE = "delete from candidates where owner = ? and endpoint = ? and function = ? and tag = ?"
CANDIDATES = f"select {', '.join(CANDIDATE_COLUMNS)} from candidates order by owner, endpoint, function, tag"

_PLACE = ("owner", "endpoint", "function", "tag")
SET_SHADOW = (
    f"insert into shadows ({', '.join(SHADOW_COLUMNS)}) values ({', '.join('?' * len(SHADOW_COLUMNS))}) "
    f"on conflict ({', '.join(_PLACE)}) do update set "
    + ", ".join(f"{name} = excluded.{name}" for name in SHADOW_COLUMNS if name not in _PLACE)
)
SHADOWS = f"select {', '.join(SHADOW_COLUMNS)} from shadows order by {', '.join(_PLACE)}"


def shadow_of(row: Sequence[Any]) -> Shadow:
    with readable("shadow", "/".join(map(str, row[:4]))):
        return checked(dict(zip(SHADOW_COLUMNS, row, strict=True)), Shadow)


def candidate_of(row: Sequence[Any]) -> Candidate:
    return Candidate(**dict(zip(CANDIDATE_COLUMNS, row, strict=True)))


def golden_row(golden: Golden) -> tuple[Any, ...]:
    """A golden request as parameters of `ADD_GOLDEN`."""
    return msgspec.structs.astuple(golden)


def golden_of(row: Sequence[Any]) -> Golden:
    values = dict(zip(GOLDEN_COLUMNS, row, strict=True))
    with readable("golden", row[0]):
        return checked(values, Golden)


def result_row(result: GateResult) -> tuple[Any, ...]:
    """A result as parameters of `SAVE_RESULT`."""
    return tuple(int(value) if name == "passed" else value for name, value in msgspec.structs.asdict(result).items())


def result_of(row: Sequence[Any]) -> GateResult:
    values = dict(zip(RESULT_COLUMNS, row, strict=True))
    with readable("gate result", row[:2]):
        return checked({**values, "passed": bool(values["passed"])}, GateResult)
