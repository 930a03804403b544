"""Names in paths of the API, as the verbs of cozyctl write them."""

import pytest

from gen_orchestrator.cli.api import ApiError, api_path


@pytest.mark.parametrize(
    ("name", "part"),
    [("run-1", "run-1"), ("a/b", "a%2Fb"), ("a?wait=1", "a%3Fwait%3D1"), ("a#b", "a%23b"), ("..", "%2E%2E"), (".", "%2E"), ("a..b", "a..b"), ("ä %", "%C3%A4%20%25")],
)  # fmt: skip
def test_a_name_stays_one_part_of_the_path(name: str, part: str) -> None:
    assert api_path("runs", name, "cancel") == f"/v1/runs/{part}/cancel"


def test_an_empty_name_names_nothing_else() -> None:
    with pytest.raises(ApiError, match="empty name in runs/"):
        api_path("runs", "")
