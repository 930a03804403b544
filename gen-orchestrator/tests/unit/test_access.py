"""API keys: what they allow, and when they are valid."""

import pytest

from gen_orchestrator.domain.access import SCOPES, Key, checked_scopes


def test_scopes_are_sorted_and_known() -> None:
    assert checked_scopes(tuple(reversed(SCOPES))) == SCOPES
    assert checked_scopes((SCOPES[1],)) == (SCOPES[1],)
    with pytest.raises(ValueError, match=rf"^a key needs a scope: {', '.join(SCOPES)}$"):
        checked_scopes(())
    wrong = SCOPES[0] + "s"
    with pytest.raises(ValueError, match=rf"^no scope '{wrong}'\. Did you mean '{SCOPES[0]}'\? Scopes: {', '.join(SCOPES)}$"):
        checked_scopes((SCOPES[1], wrong))


@pytest.mark.parametrize(
    ("expires_at", "revoked_at", "now_s", "holds"),
    [(0.0, 0.0, 1e12, True), (100.0, 0.0, 99.9, True), (100.0, 0.0, 100.0, False), (0.0, 5.0, 1.0, False), (100.0, 5.0, 1.0, False)],
)
def test_a_key_holds_until_it_expires_or_is_revoked(expires_at: float, revoked_at: float, now_s: float, holds: bool) -> None:
    key = Key(
        key_id="k", owner="o", name="n", scopes=SCOPES, secret_sha256="", created_at=0.0, expires_at=expires_at, revoked_at=revoked_at
    )
    assert key.holds(now_s) is holds
