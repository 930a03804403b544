"""Chooses which of several devices a run goes to: where it will end first without costing others more than it gains. Pure."""

from collections.abc import Sequence

import msgspec


class Offer(msgspec.Struct, frozen=True):
    """What a run would find on a device. `missing_s`: seconds to load what is missing; `runs`: runs already there;
    `harm_s`: seconds that making room would cost others, None when there is no room.
    """

    place: int
    missing_s: float
    runs: int
    harm_s: float | None = 0.0
    free_bytes: int = 0


def choose_place(offers: Sequence[Offer], run_s: float) -> int:
    """The device with the lowest estimate; among equal ones the one with the most room.

    Runs on one device take turns, so each run already there costs one `run_s`. Harm weighs more when more devices are
    busy: on an idle device a reload disturbs nobody.
    """
    busy = sum(offer.runs > 0 for offer in offers) / len(offers)

    def cost(offer: Offer) -> tuple[bool, float, int, int]:
        harm_s = offer.harm_s or 0.0
        # loading overlaps with the runs that are already there
        estimate_s = max(offer.runs * run_s, offer.missing_s) + run_s + busy * harm_s
        return offer.harm_s is None, round(estimate_s, 6), -offer.free_bytes, offer.place

    return min(offers, key=cost).place
