"""How far a model is on its way to the device: one object, the same in events, dev runner, command line and logs."""

from typing import Literal

import msgspec

Phase = Literal["waiting", "resolving", "downloading", "localizing", "loading", "ready"]


class ModelProgress(msgspec.Struct, frozen=True, omit_defaults=True):
    """A moment of it. Bytes of the phase; `bytes_total` 0 where it is not known; `rate_bytes_s` smoothed; `eta_s` of this phase."""

    model_id: str
    phase: Phase
    bytes_done: int = 0
    bytes_total: int = 0
    rate_bytes_s: int = 0
    eta_s: float | None = None

    def describe(self) -> str:
        """For people: the phase, and how far it is."""
        if not self.bytes_total:
            return self.phase
        left = f", {self.eta_s:.0f} s left" if self.eta_s is not None else ""
        return f"{self.phase} {self.bytes_done / 1e6:.1f} of {self.bytes_total / 1e6:.1f} MB, {self.rate_bytes_s / 1e6:.0f} MB/s{left}"

    @property
    def fraction(self) -> float:
        """From 0 to 1; 0 where the total is not known."""
        return min(1.0, self.bytes_done / self.bytes_total) if self.bytes_total else 0.0
