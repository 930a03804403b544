"""Which set of parts is evicted: the one that costs least to lose, if there are few enough sets to try all."""

import pytest

from gen_worker.residency.eviction import EXHAUSTIVE_UP_TO, Candidate, LeastLoss


@pytest.mark.parametrize(("count", "chosen"), [(EXHAUSTIVE_UP_TO, {"large"}), (EXHAUSTIVE_UP_TO + 1, {"small", "middle"})])
def test_all_sets_are_tried_of_twelve_candidates_and_not_of_more(count: int, chosen: set[str]) -> None:
    # By loss a byte "small" and "middle" go first and suffice, for a loss of 1.24; "large" alone is a loss of 1.21.
    sizes_and_losses = {"small": (4, 0.4), "middle": (7, 0.84), "large": (10, 1.21)}
    sizes_and_losses |= {str(number): (1, 1000.0) for number in range(count - 3)}
    candidates = [Candidate(name, size, last_use=0.0, rate=loss, reload_s=1.0) for name, (size, loss) in sizes_and_losses.items()]
    assert set(LeastLoss().choose(candidates, 10) or ()) == chosen
