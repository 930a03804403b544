"""The public ModelCache: LRU order, limits, pins."""

import pytest

from gen_worker.residency.accounting import ModelCache, ModelLocation


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
    with pytest.raises(ValueError, match="held by models in use"):
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
