"""On which of several devices a run should be: where it will end first, without costing others more than it gains. Pure."""

from collections.abc import Sequence

import msgspec


class Offer(msgspec.Struct, frozen=True):
    """What a run would find on a device. `missing_s`: to load what is not there; `runs` are there already; `harm_s`: what room for it
    would cost others, None when there is no room."""

    place: int
    missing_s: float
    runs: int
    harm_s: float | None = 0.0
    free_bytes: int = 0


def choose_place(offers: Sequence[Offer], run_s: float) -> int:
    """The place of the least estimate; of equal ones the one with the most room.

    Runs on one device take turns at it, so each that is there costs one `run_s`. Harm counts the more, the more devices are busy: on idle
    ones a reload disturbs nobody.
    """
    busy = sum(offer.runs > 0 for offer in offers) / len(offers)

    def cost(offer: Offer) -> tuple[bool, float, int, int]:
        harm_s = offer.harm_s or 0.0
        estimate_s = max(offer.runs * run_s, offer.missing_s) + run_s + busy * harm_s  # loading overlaps with what runs there
        return offer.harm_s is None, round(estimate_s, 6), -offer.free_bytes, offer.place

    return min(offers, key=cost).place
