"""What attempts use, how it adds up, and what it costs, whatever clocks and workers report."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen_orchestrator.domain.receipts import MAX_BYTES, MAX_NANOS, NOTHING, UNPRICED, Prices, Said, Usage, UsageRow, attempt, summed
from gen_orchestrator.hub.prices import PricesError, read_prices

PRICES = Prices(currency="EUR", gpus={"H100": 0.001}, gpu_second=0.0005, cpu_second=0.00001, downloaded_gb=0.01, loaded_gb=0.001)


@pytest.mark.parametrize(
    ("said", "gpu", "expected"),
    [
        # The worker's word counts as far as it had the run.
        (Said(1500, 700, 100, 50), "H100", Usage(1500, 0, 700, 100, 50, 1_500_001)),
        (Said(1500), "A10", Usage(1500, cost_nanos=750_000)),
        (Said(1500), "", Usage(1500, cost_nanos=750_000)),
        (Said(1500), None, Usage(0, 1500, cost_nanos=15_000)),
        (Said(9000, 9000), "H100", Usage(3000, 0, 3000, cost_nanos=3_000_000)),
        (Said(0), "H100", NOTHING),
        # Without it: from its start of the run to the end.
        (Said(), "H100", Usage(2000, cost_nanos=2_000_000)),
        # No lie makes a number negative, or larger than it can be.
        (Said(-5, -5, -5, -5), "H100", NOTHING),
        (Said(2**62, 2**62, 2**62, 2**62), None, Usage(0, 3000, 3000, MAX_BYTES, MAX_BYTES, 12_384_899_005_269)),
    ],
)
def test_an_attempt(said: Said, gpu: str | None, expected: Usage) -> None:
    found = attempt(said, had_s=3.0, worked_s=2.0, gpu=gpu, prices=PRICES)
    assert found == expected


def test_what_has_no_price_has_no_cost() -> None:
    def cost(prices: Prices | None, gpu: str | None) -> int:
        return attempt(Said(1000), had_s=3.0, worked_s=2.0, gpu=gpu, prices=prices).cost_nanos

    assert cost(None, None) == cost(None, "H100") == UNPRICED
    assert cost(Prices(cpu_second=1.0), "H100") == cost(Prices(gpus={"H100": 1.0}), "A10") == cost(Prices(gpu_second=1.0), None) == UNPRICED
    assert cost(Prices(cpu_second=0.0), None) == 0
    assert (Usage(cost_nanos=5) + Usage(cost_nanos=UNPRICED)).cost_nanos == UNPRICED
    assert Usage(1, 2, 3, 4, 5, 6) + Usage(10, 20, 30, 40, 50, 60) == Usage(11, 22, 33, 44, 55, 66)


@given(
    had_s=st.floats(-1e18, 1e18),
    worked_s=st.floats(-1e18, 1e18),
    device_ms=st.none() | st.integers(-(2**63), 2**63),
    gpu=st.sampled_from([None, "", "H100"]),
    price=st.floats(0, 1e6),
)
def test_clocks_that_jump_make_no_debt_and_no_overflow(
    had_s: float, worked_s: float, device_ms: int | None, gpu: str | None, price: float
) -> None:
    used = attempt(Said(device_ms), had_s=had_s, worked_s=worked_s, gpu=gpu, prices=Prices(gpu_second=price, cpu_second=price))
    assert 0 <= used.gpu_ms + used.cpu_ms <= max(0, round(had_s * 1000))
    assert 0 <= used.cost_nanos <= MAX_NANOS
    assert (used.gpu_ms == 0) if gpu is None else (used.cpu_ms == 0)


def a_row(day: int, function: str = "f", **numbers: int) -> UsageRow:
    return UsageRow(day=day, owner="o", invoker_id="key:a", endpoint="e", function=function, runs=1, **numbers)


def test_days_are_summed_by_whose_they_are() -> None:
    rows = [a_row(2, gpu_ms=5), a_row(1, gpu_ms=1, cost_nanos=3), a_row(1, gpu_ms=2, unpriced=1), a_row(1, "g", gpu_ms=7)]
    found = summed(rows)
    assert [(row.day, row.function, row.runs, row.gpu_ms, row.cost_nanos, row.unpriced) for row in found] == [
        (1, "f", 2, 3, 3, 1), (1, "g", 1, 7, 0, 0), (2, "f", 1, 5, 0, 0),
    ]  # fmt: skip


def test_a_price_table_is_read(tmp_path: Path) -> None:
    assert read_prices(tmp_path) is None
    text = 'currency = "EUR"\ngpu_second = 0.0005\ncpu_second = 0.00001\ndownloaded_gb = 0.01\nloaded_gb = 0.001\n[gpus]\nH100 = 0.001\n'
    (tmp_path / "prices.toml").write_text(text)
    assert read_prices(tmp_path) == PRICES


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("gpu_second = -1", "gpu_second"),
        ("gpu_second = nan", "gpu_second"),
        ("gpu_second = inf", "gpu_second"),
        ("gpu_second = 1e7", "gpu_second"),
        ('gpu_second = "1"', "gpu_second"),
        ("gpu_minute = 1", "gpu_minute"),
        ("[gpus]\nH100 = -1", "gpus"),
        ("gpu_second", "Expected '='"),
        ("currency = 5", "currency"),
        ("\udcff", "utf-8"),
    ],
)
def test_a_price_table_that_says_no_prices_is_named(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "prices.toml").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(PricesError, match=why) as caught:
        read_prices(tmp_path)
    assert str(tmp_path / "prices.toml") in str(caught.value)
