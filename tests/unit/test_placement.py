"""The choice of a device for a run."""

import pytest

from gen_worker.residency.placement import Offer, choose_place

CASES = {
    "where the model is": ([Offer(0, 5.0, 0), Offer(1, 0.0, 0)], 1.0, 1),
    "where it is, behind a run that takes less than a load": ([Offer(0, 5.0, 0), Offer(1, 0.0, 1)], 1.0, 1),
    "elsewhere once the runs before it take longer than the load": ([Offer(0, 5.0, 0), Offer(1, 0.0, 6)], 1.0, 0),
    "behind runs that are short": ([Offer(0, 1.5, 0), Offer(1, 0.0, 4)], 0.25, 1),
    "of equal ones the one with most room": ([Offer(0, 2.0, 0, 0.0, 10), Offer(1, 2.0, 0, 0.0, 20)], 1.0, 1),
    "never where there is no room, unless there is none anywhere": ([Offer(0, 9.0, 9), Offer(1, 0.0, 0, None)], 1.0, 0),
    "of full ones the quicker": ([Offer(0, 2.0, 0, None), Offer(1, 1.0, 0, None)], 1.0, 1),
    "on idle devices harm does not count": ([Offer(0, 1.0, 0, 9.0), Offer(1, 2.0, 0, 0.0)], 1.0, 0),
    "one busy device of two halves it: just worth it": ([Offer(0, 1.0, 1, 1.9), Offer(1, 2.0, 0, 0.0)], 1.0, 0),
    "one busy device of two halves it: just not": ([Offer(0, 1.0, 1, 2.1), Offer(1, 2.0, 0, 0.0)], 1.0, 1),
    "on busy ones it does": ([Offer(0, 1.0, 1, 9.0), Offer(1, 2.0, 1, 0.0)], 1.0, 1),
}


@pytest.mark.parametrize("name", CASES)
def test_it_goes(name: str) -> None:
    offers, run_s, expected = CASES[name]
    assert choose_place(offers, run_s) == expected


def test_a_hot_model_gets_a_second_copy_when_its_queue_is_longer_than_the_load() -> None:
    """Runs of one model that come at once, on two devices of which one has it: 3 s to load, 1 s a run."""
    runs, resident, sent = [0, 0], [True, False], []
    for _ in range(8):
        offers = [Offer(n, 0.0 if resident[n] else 3.0, runs[n]) for n in range(2)]
        place = choose_place(offers, 1.0)
        resident[place] = True
        runs[place] += 1
        sent.append(place)
    assert sent[:3] == [0, 0, 0]
    assert runs == [4, 4]
