"""The public ModelCache: LRU order, limits, pins."""

import pytest

from gen_worker.model_cache import ModelCache as PublicModelCache
from gen_worker.residency.accounting import ModelCache, ModelLocation
from gen_worker.residency.ledger import DoesNotFitError, Ledger, Part


def test_the_readme_example() -> None:
    cache = ModelCache(max_vram_gb=20.0)
    cache.mark_loaded_to_vram("model-a", object(), size_gb=8.0)
    assert cache.is_in_vram("model-a")
    assert cache.get_vram_models() == ["model-a"]


def test_the_least_recently_used_goes_first() -> None:
    cache = ModelCache(max_vram_gb=20)
    for name in "abc":
        cache.mark_loaded_to_vram(name, name, 5)
    cache.mark_loaded_to_vram("d", "d", 10)
    assert cache.get_vram_models() == ["b", "c", "d"]
    cache.get_pipeline("b")
    cache.mark_loaded_to_vram("e", "e", 5)
    assert cache.get_vram_models() == ["d", "b", "e"]


def test_reloading_does_not_evict_itself_and_sizes_stay_true() -> None:
    cache = ModelCache(max_vram_gb=10)
    cache.mark_loaded_to_vram("a", 1, 6)
    cache.mark_loaded_to_vram("a", 2, 8)
    assert cache.get_pipeline("a") == 2
    assert cache.get_stats().vram_used_gb == 8


def test_what_is_larger_than_the_limit_is_refused() -> None:
    cache = ModelCache(max_vram_gb=10)
    with pytest.raises(ValueError, match="does not fit"):
        cache.mark_loaded_to_vram("huge", 1, 11)
    assert cache.get_stats().vram_used_gb == 0


def test_a_model_in_use_is_never_evicted() -> None:
    cache = ModelCache(max_vram_gb=10)
    cache.mark_loaded_to_vram("a", 1, 6)
    cache.pin("a")
    with pytest.raises(ValueError, match="used by models of running runs"):
        cache.mark_loaded_to_vram("b", 1, 6)
    assert cache.unload_from_vram("a") == 0
    assert not cache.unload_model("a")
    assert not cache.can_fit_in_vram(6)
    cache.unpin("a")
    cache.mark_loaded_to_vram("b", 1, 6)
    assert cache.get_vram_models() == ["b"]


def test_disk_and_download_states(tmp_path) -> None:
    cache = ModelCache(max_vram_gb=10, model_cache_dir=tmp_path / "new")
    cache.mark_downloading("a", 0.25)
    assert cache.get_download_progress("a") == 0.25
    assert not cache.are_models_available(["a"])
    cache.mark_cached_to_disk("a", tmp_path, 2)
    assert cache.is_on_disk("a")
    cache.mark_loaded_to_vram("a", object(), 2)
    assert cache.unload_from_vram("a") == 2
    assert cache.is_on_disk("a")
    cache.register_model("b", ModelLocation.VRAM, 1, object(), tmp_path)
    assert cache.evict_lru_vram_until_count(0) == 1
    assert cache.get_stats().to_dict()["disk_model_count"] == 2
    assert cache.get_available_models() == ["a", "b"]


def test_an_explicit_limit_of_zero_is_zero() -> None:
    assert ModelCache(max_vram_gb=0).get_stats().vram_total_gb == 0


@pytest.mark.parametrize("said", ["on disk", "downloading", "registered"])
def test_what_is_said_of_a_model_in_use_holds_once_it_is_not(said: str) -> None:
    cache = ModelCache(max_vram_gb=10)
    cache.mark_loaded_to_vram("a", "pipe", 6)
    with cache.pin("a"):
        if said == "on disk":
            cache.mark_cached_to_disk("a", "/x", 6)
        elif said == "downloading":
            cache.mark_downloading("a", 0.5)
        else:
            cache.register_model("a", ModelLocation.DISK, 6, disk_path="/x")
        assert cache.get_pipeline("a") == "pipe"
        assert cache.is_pinned("a")
        assert not cache.can_fit_in_vram(6)
    assert not cache.is_in_vram("a")
    assert cache.get_stats().vram_used_gb == 0
    assert cache.get_download_progress("a") == (0.5 if said == "downloading" else None)
    cache.mark_loaded_to_vram("b", 1, 6)


def test_a_pin_given_back_twice_or_late_takes_nobody_elses() -> None:
    cache = ModelCache(max_vram_gb=10)
    cache.mark_loaded_to_vram("a", 1, 6)
    first, second = cache.pin("a"), cache.pin("a")
    first.release()
    first.release()
    assert cache.is_pinned("a")
    second.release()
    assert cache.unload_model("a")
    cache.mark_loaded_to_vram("a", 2, 6)
    third = cache.pin("a")
    first.release()
    second.release()
    assert cache.is_pinned("a")
    third.release()
    assert not cache.is_pinned("a")
    cache.unpin("a")


@pytest.mark.parametrize("size", [-1, float("nan"), float("inf"), -0.001, True, "5", None])
def test_sizes_that_are_none(size: object) -> None:
    cache = ModelCache(max_vram_gb=10)
    with pytest.raises(ValueError, match=r"size_gb=.*: expected GB of 10\^9 bytes, a number from 0"):
        cache.mark_loaded_to_vram("a", 1, size)  # type: ignore[arg-type]
    assert cache.get_all_models() == []
    if size is not None:
        with pytest.raises(ValueError, match="max_vram_gb="):
            ModelCache(max_vram_gb=size)  # type: ignore[arg-type]


def test_a_load_that_failed_leaves_its_waiters_pins_and_takes_no_later_ones() -> None:
    """The load of a part fails while another waits for it; a third begins anew; then the second hears of it and gives its pin back."""
    ledger = Ledger(lambda: 100)
    assert ledger.reserve([Part("p", 60)]) == (["p"], [])
    assert ledger.reserve([Part("p", 60)]) == ([], [])
    ledger.abort("p")
    assert ledger.used_bytes == 0
    ledger.unpin(["p"])
    assert ledger.reserve([Part("p", 60)]) == (["p"], [])
    ledger.commit("p")
    ledger.unpin(["p"])
    assert ledger.is_pinned("p")
    assert ledger.evict(60) == []
    with pytest.raises(DoesNotFitError):
        ledger.reserve([Part("q", 60)])
    ledger.unpin(["p"])
    assert ledger.evict(60) == ["p"]


def test_sizes_of_parts_are_whole_numbers_from_0_up() -> None:
    for size in (-1, 1.5, float("nan"), True):
        with pytest.raises(ValueError, match="part 'p' of"):
            Part("p", size)  # type: ignore[arg-type]
    ledger = Ledger(lambda: 100)
    ledger.reserve([Part("p", 5)])
    with pytest.raises(ValueError, match="part 'p' of -3 bytes"):
        ledger.commit("p", -3)
    with pytest.raises(ValueError, match="part 'p' of -3 bytes"):
        ledger.resize("p", -3)


def test_the_public_door_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_MAX_VRAM_GB", "12")
    monkeypatch.setenv("WORKER_MAX_CONCURRENT_DOWNLOADS", "5")
    cache = PublicModelCache()
    assert (cache.get_stats().vram_total_gb, cache.get_max_concurrent_downloads()) == (12, 5)
    assert PublicModelCache(max_vram_gb=3).get_stats().vram_total_gb == 3
    monkeypatch.setenv("WORKER_MAX_VRAM_GB", "-5")
    with pytest.raises(ValueError, match="environment variable WORKER_MAX_VRAM_GB=-5"):
        PublicModelCache()
