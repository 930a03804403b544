"""Signing keys of worker tokens: rotation, which keys still verify, when a key is removed, and several programs with one folder."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jwt
import pytest
from waiting import until

from gen_orchestrator.auth.signing_keys import FIRST_NAME, LEEWAY_S, MAX_LIFE_S, STEP_S, has_keys
from gen_orchestrator.auth.worker_tokens import TokenError, WorkerClaims, WorkerTokens

ME = WorkerClaims("w1", "ann", "rel")


def kids(tokens: WorkerTokens) -> list[str]:
    return [key["kid"] for key in json.loads(tokens.jwks)["keys"]]


def kid_of(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


def ends(folder: Path, name: str = FIRST_NAME) -> float:
    return float((folder / f"{name}.until").read_text())


def test_a_new_key_signs_and_the_one_before_verifies(tmp_path: Path) -> None:
    tokens = WorkerTokens.from_folder(tmp_path)
    before = tokens.issue(ME)
    made = tokens.keys.rotate()
    after = tokens.issue(ME)
    assert kids(tokens) == [kid_of(before), kid_of(after)]
    assert kid_of(after) == made.kid
    for each in (tokens, WorkerTokens.from_folder(tmp_path)):
        assert [each.verify(token).worker_id for token in (before, after)] == ["w1", "w1"]
        assert kid_of(each.issue(ME)) == made.kid
        assert kids(each) == kids(tokens)
    for path in tmp_path.glob("worker-tokens-*.key"):
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_key_is_written_down_for_as_long_as_its_longest_token(tmp_path: Path) -> None:
    tokens = WorkerTokens.from_folder(tmp_path)
    assert ends(tmp_path) == 0
    tokens.issue(WorkerClaims("w1", "ann", "rel", life_s=7200))
    first = ends(tmp_path)
    assert 7100 + STEP_S < first - time.time() < 7300 + STEP_S
    tokens.issue(ME)
    assert ends(tmp_path) == first, "nothing is written for a token that is over before"
    WorkerTokens.from_folder(tmp_path).issue(WorkerClaims("w2", "ann", "rel", life_s=MAX_LIFE_S))
    tokens.issue(WorkerClaims("w1", "ann", "rel", life_s=9000))
    assert ends(tmp_path) - time.time() > MAX_LIFE_S - 100, "another program has signed with it, too"


def test_a_key_whose_last_token_is_over_leaves(tmp_path: Path) -> None:
    tokens = WorkerTokens.from_folder(tmp_path)
    before = tokens.issue(ME)
    tokens.keys.rotate()
    (tmp_path / f"{FIRST_NAME}.until").write_text(f"{time.time() - LEEWAY_S - 1:.0f}")
    again = WorkerTokens.from_folder(tmp_path)
    assert kids(again) == [again.keys.current.kid]
    with pytest.raises(TokenError, match="no longer valid"):
        again.verify(before)
    third = again.keys.rotate()
    assert not (tmp_path / FIRST_NAME).exists()
    assert kids(WorkerTokens.from_folder(tmp_path))[-1] == third.kid, "the first name is not made anew"
    assert has_keys(tmp_path)
    assert not has_keys(tmp_path / "none")


def test_a_key_that_was_never_used_leaves_with_the_next(tmp_path: Path) -> None:
    tokens = WorkerTokens.from_folder(tmp_path)
    made = [tokens.keys.rotate().kid for _ in range(3)]
    assert kids(tokens) == made[-1:]
    assert len(list(tmp_path.glob("*.key"))) == 1


def test_a_key_of_an_earlier_version_is_kept_for_the_longest_life(tmp_path: Path) -> None:
    before = WorkerTokens.from_folder(tmp_path).issue(ME)
    (tmp_path / f"{FIRST_NAME}.until").unlink()
    tokens = WorkerTokens.from_folder(tmp_path)
    tokens.keys.rotate()
    assert WorkerTokens.from_folder(tmp_path).verify(before).worker_id == "w1"
    assert ends(tmp_path) - time.time() > MAX_LIFE_S - 100


def test_what_another_program_has_made_is_found(tmp_path: Path) -> None:
    """Two nodes: one rotates, and the other is shown a token of the new key."""
    here, there = WorkerTokens.from_folder(tmp_path), WorkerTokens.from_folder(tmp_path)
    there.keys.rotate()
    token = there.issue(ME)

    def accepted() -> bool:
        try:
            return here.verify(token).worker_id == "w1"
        except TokenError:
            return False

    until(accepted)
    assert kid_of(here.issue(ME)) == kid_of(token)


def test_many_rotations_at_once_make_a_key_each(tmp_path: Path) -> None:
    nodes = [WorkerTokens.from_folder(tmp_path) for _ in range(4)]
    tokens = [node.issue(ME) for node in nodes]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda node: node.keys.rotate().kid, nodes))
    assert len(set(made)) == 4
    last = WorkerTokens.from_folder(tmp_path)
    assert {last.verify(token).worker_id for token in tokens} == {"w1"}
    assert kids(last)[-1] in made


def test_tokens_of_keys_that_are_not_ours_are_refused(tmp_path: Path) -> None:
    ours = WorkerTokens.from_folder(tmp_path / "ours")
    for headers in ({"kid": "x" * 5000}, {"kid": ""}, {"kid": ours.keys.current.kid}, {}):
        theirs = WorkerTokens.from_folder(tmp_path / "theirs").keys.current.private
        token = jwt.encode({"sub": "w1", "exp": time.time() + 60}, theirs, algorithm="RS256", headers=headers)
        with pytest.raises(TokenError):
            ours.verify(token)
