"""A store that lost confirmed writes, such as a standby that took over too early: the node stops and says so."""

from pathlib import Path
from typing import Any

import pytest
from serve_process import ServeProcess

from gen_orchestrator.scheduling.leader import Epochs, StoreWentBackError
from gen_orchestrator.store.base import Leader


def test_a_leader_ends_with_the_reason(project: Path, tmp_path: Path, postgres_url: str) -> None:
    import psycopg

    def change(text: str) -> Any:
        with psycopg.connect(postgres_url, autocommit=True) as database:
            return database.execute(text)

    node = ServeProcess(project, tmp_path / "data", postgres_url, "only")
    try:
        node.until(lambda: node.role() == "leader")
        change("update leader set epoch = epoch - 1")
        assert node.wait_for_end() == 1
        assert "the store has gone back in time: it is at epoch 1, and this node has seen 1" in node.log.read_text()
        node.start()  # an operator who knows lets it go on
        node.until(lambda: node.role() == "leader")
        assert node.invoke("echo", {"text": "again"}).json()["output"]["text"] == "again"
    finally:
        node.close()


@pytest.mark.parametrize(
    ("seen", "fits"),
    [
        ([(1, True), (2, True), (3, False), (3, False), (5, False), (6, True)], True),
        ([(2, False), (2, True)], False),
        ([(2, True), (1, False)], False),
        ([(4, False), (3, True)], False),
    ],
)
def test_epochs_only_grow(seen: list[tuple[int, bool]], *, fits: bool) -> None:
    epochs = Epochs()
    *before, last = [(Leader("n", epoch, "127.0.0.1:1"), is_new) for epoch, is_new in seen]
    for leader, is_new in before:
        epochs.saw(leader, is_new=is_new)
    if fits:
        epochs.saw(last[0], is_new=last[1])
    else:
        with pytest.raises(StoreWentBackError, match="a standby that lagged behind"):
            epochs.saw(last[0], is_new=last[1])
