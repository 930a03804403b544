"""Behaviour of every store for deleted releases: a release in use cannot be deleted, and its row stays."""

from collections.abc import Callable

import msgspec
import pytest
from test_gate_store import A_CANDIDATE, A_SHADOW
from test_store import SUCCESS, a_run, lead

from gen_orchestrator.store.base import NO_RELEASE, Release, Store, Tag
from gen_orchestrator.store.ops import Accept, Finish, Lease

RELEASE = Release(
    release_id="rel-2", owner="ann", endpoint="pictures", manifest=b'{"a":1}', source="/x", created_at=2.0, digest="d2", message="old"
)
TAG = Tag(owner="ann", endpoint="pictures", function="draw", tag="prod", release_id="rel-2", version=1, moved_at=1.0)


def test_a_deleted_release_keeps_its_row_and_gets_no_tag(store: Store, make_store: Callable[[], Store]) -> None:
    epoch = lead(store).epoch
    store.add_release(RELEASE)
    assert store.delete_release(epoch + 1, "rel-2", 5.0) is False, "who leads no more deletes nothing"
    assert store.delete_release(epoch, "rel-1", 5.0) is False
    assert store.clear_release("rel-2", 6.0) is False, "it has its files"
    assert store.delete_release(epoch, "rel-2", 5.0) is True
    assert store.delete_release(epoch, "rel-2", 6.0) is False
    assert store.move_tag(TAG) is None
    again = make_store()
    deleted = msgspec.structs.replace(RELEASE, deleted_at=5.0)
    assert (again.release("rel-2"), again.releases("ann")) == (deleted, [deleted])
    assert (again.clear_release("rel-2", 7.0), again.clear_release("rel-2", 8.0)) == (True, False)
    assert again.release("rel-2") == msgspec.structs.replace(deleted, cleared_at=7.0)


def test_a_deleted_release_that_is_published_again_is_there_again(store: Store) -> None:
    epoch = lead(store).epoch
    store.add_release(RELEASE)
    store.add_release(msgspec.structs.replace(RELEASE, created_at=3.0, message="the same"))
    assert store.release("rel-2") == RELEASE
    store.delete_release(epoch, "rel-2", 5.0)
    store.clear_release("rel-2", 6.0)
    new = msgspec.structs.replace(RELEASE, created_at=9.0, message="back")
    store.add_release(new)
    assert store.release("rel-2") == new
    assert store.move_tag(TAG) == TAG


def test_a_tag_that_was_taken_away_keeps_no_release_and_comes_back_with_the_next_version(store: Store) -> None:
    epoch = lead(store).epoch
    store.add_release(RELEASE)
    store.move_tag(TAG)
    gone = msgspec.structs.replace(TAG, release_id=NO_RELEASE, version=2, moved_at=2.0)
    assert store.move_tag(gone) == gone
    assert store.move_tag(gone) is None, "somebody else took it away"
    back = msgspec.structs.replace(TAG, version=3, moved_at=3.0)
    assert store.move_tag(back) == back
    assert store.tag_history("ann", "pictures", "draw", "prod") == [back, gone, TAG]
    store.move_tag(msgspec.structs.replace(gone, version=4))
    assert store.delete_release(epoch, "rel-2", 5.0) is True


def _tag(store: Store, epoch: int) -> None:
    store.move_tag(TAG)


def _candidate(store: Store, epoch: int) -> None:
    store.set_candidate(A_CANDIDATE)


def _shadow(store: Store, epoch: int) -> None:
    store.set_shadow(A_SHADOW)


def _waiting(store: Store, epoch: int) -> None:
    store.apply(epoch, [Accept(a_run(release_id="rel-2"))])


def _leased(store: Store, epoch: int) -> None:
    store.apply(epoch, [Accept(a_run(release_id="rel-2")), Lease("r1", 1, "w1", 1.0)])


@pytest.mark.parametrize("use", [_tag, _candidate, _shadow, _waiting, _leased])
def test_what_uses_a_release_keeps_it(store: Store, use: Callable[[Store, int], None]) -> None:
    epoch = lead(store).epoch
    store.add_release(RELEASE)
    use(store, epoch)
    assert store.delete_release(epoch, "rel-2", 5.0) is False
    assert store.release("rel-2") == RELEASE


def test_what_used_a_release_does_not_keep_it(store: Store) -> None:
    epoch = lead(store).epoch
    store.add_release(RELEASE)
    store.add_release(msgspec.structs.replace(RELEASE, release_id="rel-3", digest="d3"))
    _tag(store, epoch)
    store.move_tag(msgspec.structs.replace(TAG, release_id="rel-3", version=2))
    _candidate(store, epoch)
    store.drop_candidate(*msgspec.structs.astuple(A_CANDIDATE)[:4])
    store.set_shadow(msgspec.structs.replace(A_SHADOW, ended_at=9.0))
    _leased(store, epoch)
    store.apply(epoch, [Finish("r1", 1, SUCCESS)])
    assert store.delete_release(epoch, "rel-2", 5.0) is True
    assert [tag.release_id for tag in store.tag_history("ann", "pictures", "draw", "prod")] == ["rel-3", "rel-2"], "history stays"
