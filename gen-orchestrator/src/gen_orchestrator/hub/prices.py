"""The price table of a platform: `prices.toml` in its data folder, read once at the start.

currency = "EUR"
gpu_second = 0.0006          # of a GPU that [gpus] does not name
cpu_second = 0.00002         # on a worker without a GPU
downloaded_gb = 0.01         # of models, 10^9 bytes each
loaded_gb = 0.0

[gpus]
"NVIDIA H100 80GB HBM3" = 0.0011
"""

import tomllib
from pathlib import Path

import msgspec

from gen_orchestrator.domain.receipts import Prices

FILE_NAME = "prices.toml"


class PricesError(ValueError):
    """The file exists but contains no valid prices; the message names it, and what is wrong."""


def read_prices(folder: Path) -> Prices | None:
    """The prices in this data folder; None when it has no such file."""
    path = folder / FILE_NAME
    try:
        return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Prices)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as exc:
        raise PricesError(f"{path}: {exc}") from None
