"""Which files are fetched from well-known repositories: those that the model's class reads, and no others."""

import pytest
from tests.repositories import Repository, repositories

from gen_worker.sources.file_plan import PlanError

ALL = repositories()
CASES = [
    pytest.param(found, letter, id=f"{found.name}-{taker.rpartition('.')[2]}") for found in ALL for letter, taker in found.takers.items()
]


def test_there_are_many() -> None:
    assert len(ALL) >= 60
    assert len({found.name for found in ALL}) == len(ALL)


@pytest.mark.parametrize(("repository", "letter"), CASES)
def test_exactly_what_the_class_reads(repository: Repository, letter: str) -> None:
    taker = repository.takers[letter]
    if letter in repository.refused:
        with pytest.raises(PlanError, match=repository.refused[letter]):
            repository.plan((taker,))
        return
    assert set(repository.plan((taker,)).files) == repository.expected(letter)


@pytest.mark.parametrize("repository", [pytest.param(found, id=found.name) for found in ALL if len(found.takers) > 1])
def test_several_classes_of_one_model_share_a_plan(repository: Repository) -> None:
    letters = [letter for letter in repository.takers if letter not in repository.refused]
    plan = repository.plan(tuple(repository.takers[letter] for letter in letters))
    assert set(plan.files) == set().union(*(repository.expected(letter) for letter in letters))
    assert len(plan.files) == len(set(plan.files))


@pytest.mark.parametrize("repository", [pytest.param(found, id=found.name) for found in ALL])
def test_nothing_that_can_run_code_is_ever_taken(repository: Repository) -> None:
    for taker in ("", *repository.takers.values()):
        try:
            files = repository.plan((taker,)).files
        except PlanError:
            continue
        if "faster_whisper" not in taker:  # its model.bin is a format of its own
            assert not [path for path in files if path.endswith((".py", ".bin", ".ckpt", ".pth", ".h5", ".msgpack", ".ot", ".pkl"))]
