"""The progress of a model on its way to the device: the same object in events, dev runner, command line and logs."""

from typing import Literal

import msgspec

Phase = Literal["waiting", "resolving", "downloading", "localizing", "loading", "ready"]


class ModelProgress(msgspec.Struct, frozen=True, omit_defaults=True):
    """Progress at one moment. Bytes are those of the phase; `bytes_total` is 0 when unknown; `rate_bytes_s` is
    smoothed; `eta_s` is for this phase.
    """

    model_id: str
    phase: Phase
    bytes_done: int = 0
    bytes_total: int = 0
    rate_bytes_s: int = 0
    eta_s: float | None = None

    def describe(self) -> str:
        """Text for people: the phase and how far it is."""
        if not self.bytes_total:
            return self.phase
        left = f", {self.eta_s:.0f} s left" if self.eta_s is not None else ""
        return f"{self.phase} {self.bytes_done / 1e6:.1f} of {self.bytes_total / 1e6:.1f} MB, {self.rate_bytes_s / 1e6:.0f} MB/s{left}"

    @property
    def fraction(self) -> float:
        """From 0 to 1; 0 when the total is unknown."""
        return min(1.0, self.bytes_done / self.bytes_total) if self.bytes_total else 0.0
