"""File tokens: what they allow, and that nothing else is accepted as one."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen_orchestrator.api.files import FileRoutes
from gen_orchestrator.hub.blobs import FolderBlobs
from gen_orchestrator.hub.files import TOKEN_LIFE_S, FileToken, FileTokens, NotLeadingError, RunFiles
from gen_orchestrator.hub.uploads import UploadLimits, Uploads
from gen_worker.http.asgi import RequestError

TOKEN = FileToken("ann", "run-1", 3)


class Moving:
    """A clock in the test's hands."""

    def __init__(self) -> None:
        self.at_s = 1000.0

    def __call__(self) -> float:
        return self.at_s


def test_a_token_says_what_was_signed_until_it_is_over() -> None:
    clock = Moving()
    tokens = FileTokens(b"x" * 32, clock)
    text = tokens.issue(TOKEN)
    assert tokens.verify(text) == TOKEN
    clock.at_s += TOKEN_LIFE_S + 1
    assert tokens.verify(text) is None


def test_another_process_does_not_take_it() -> None:
    text = FileTokens(b"x" * 32, Moving()).issue(TOKEN)
    assert FileTokens(b"y" * 32, Moving()).verify(text) is None


@given(st.data())
def test_a_changed_token_is_none(data: st.DataObject) -> None:
    tokens = FileTokens(b"x" * 32, Moving())
    text = tokens.issue(TOKEN)
    index = data.draw(st.integers(0, len(text) - 1))
    changed = text[:index] + data.draw(st.characters()) + text[index + 1 :]
    assert changed == text or tokens.verify(changed) is None


@pytest.mark.parametrize("text", ["", ".", "a.b", "\u00e9.\u00e9", "x" * 5000])
def test_what_is_no_token_is_refused(text: str) -> None:
    assert FileTokens(b"x" * 32, Moving()).verify(text) is None


def test_a_node_that_leads_no_more_asks_for_another_try(tmp_path: Path) -> None:
    """A refusal would end the run; the next leader knows its attempt."""

    def is_open(token: FileToken) -> bool:
        raise NotLeadingError

    blobs = FolderBlobs(tmp_path)
    uploads = Uploads(tmp_path, blobs, UploadLimits(file_bytes=1, owner_bytes=1, keep_s=1), Moving())
    files = RunFiles(tmp_path, blobs, lambda owner, run_id: 0, Moving(), is_open)
    routes = FileRoutes(files, FileTokens(b"x" * 32, Moving()), uploads, 1)
    with pytest.raises(RequestError) as refused:
        routes._check_open(TOKEN)
    assert (refused.value.status, refused.value.headers["retry-after"]) == (503, "1")
