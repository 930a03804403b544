"""Shadow runs: which runs are copied, what is counted, and how far apart two images are."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen_orchestrator.domain import canary
from gen_orchestrator.domain.comparison import MAX_VALUE_CHARACTERS, Difference, clipped, differences
from gen_orchestrator.domain.shadow import MAX_EXAMPLES, SPARE_S, WINDOW, Tally, limit_s, percentile, takes_part
from gen_orchestrator.gates import images


def file(sha256: str, **more: Any) -> dict[str, Any]:
    return {"ref": f"runs/{sha256}/a.png", "size_bytes": len(sha256), "sha256": sha256, "mime_type": "image/png", **more}


@given(st.text(), st.floats(0, 100), st.floats(0, 100))
def test_a_larger_share_keeps_the_runs_of_a_smaller_one(run_id: str, one: float, other: float) -> None:
    assert takes_part(run_id, min(one, other)) <= takes_part(run_id, max(one, other))
    assert (takes_part(run_id, 0), takes_part(run_id, 100)) == (False, True)


def test_the_share_has_nothing_to_do_with_a_canary() -> None:
    ids = [str(number) for number in range(4000)]
    both = sum(takes_part(each, 50) and canary.takes_part(each, 50) for each in ids)
    assert abs(both / len(ids) - 0.25) < 0.03


def test_what_is_kept_is_bounded() -> None:
    tally = Tally()
    apart = [Difference(f"/{number}", "x" * 20_000, ["y"] * 5_000) for number in range(100)]
    for number in range(1000):
        tally.count(str(number), "e" * 10_000 if number % 2 else "", apart, 1.0, 2.0)
    assert (tally.equal, tally.different, tally.failed, tally.compared) == (0, 500, 500, 1000)
    assert (len(tally.examples), len(tally.tag_s), len(tally.release_s)) == (MAX_EXAMPLES, WINDOW, WINDOW)
    assert [each.run_id for each in tally.examples] == [str(number) for number in range(MAX_EXAMPLES)]
    assert len(msgspec.json.encode(tally)) < 64 << 10
    assert msgspec.json.decode(msgspec.json.encode(tally), type=Tally) == tally


def test_it_passes_where_every_copy_gave_the_same() -> None:
    tally = Tally()
    assert not tally.passed
    tally.count("a", "", [], 1.0, 1.0)
    assert tally.passed
    tally.count("b", "it broke", [], 1.0, 1.0)
    assert not tally.passed
    assert tally.tag_s == [1.0], "what failed says nothing of speed"


@pytest.mark.parametrize(
    ("took_s", "timeout_s", "limit"), [(1.0, 0.0, 10.0 + SPARE_S), (1.0, 5.0, 5.0), (100.0, 5000.0, 1000.0 + SPARE_S), (0.0, 0.0, SPARE_S)]
)
def test_a_copy_that_hangs_ends(took_s: float, timeout_s: float, limit: float) -> None:
    assert limit_s(took_s, timeout_s) == limit


def test_percentiles_are_by_nearest_rank() -> None:
    seconds = [float(number) for number in range(100, 0, -1)]
    assert (percentile([], 50), percentile([3.0], 95), percentile(seconds, 50), percentile(seconds, 95)) == (None, 3.0, 50.0, 95.0)


def test_a_value_that_is_kept_is_short() -> None:
    assert clipped(Difference("/a", {"b": 1}, [1.5])) == Difference("/a", {"b": 1}, [1.5])
    long = clipped(Difference("/a", "x" * 5000, None))
    assert (len(long.expected), long.actual) == (MAX_VALUE_CHARACTERS + 3, None)


def test_files_are_as_far_apart_as_who_reads_them_says() -> None:
    one, other = {"image": file("aa")}, {"image": file("bb", ref="runs/other/a.png")}
    assert [each.pointer for each in differences(one, other)] == ["/image/sha256"]
    for said, tolerance, apart in ((0.01, 0.02, False), (0.03, 0.02, True), (0.0, 0.0, False), (None, 1.0, False)):
        found = differences(one, other, tolerance, lambda left, right, said=said: said)  # type: ignore[misc]
        assert bool(found) == apart, (said, tolerance)
    assert differences(one, other, 0.9, lambda left, right: None) == differences(one, other, 0.9)
    asked: list[object] = []
    assert differences(one, {"image": file("aa", ref="else")}, 0.0, lambda *both: asked.append(both)) == []  # type: ignore[func-returns-value]
    assert asked == [], "the same bytes need no look"


def image_distance(one: Path, other: Path) -> float | None:
    return images.image_distance(one.read_bytes(), other.read_bytes())


def test_images_are_apart_by_their_pixels(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")

    def drawn(name: str, color: tuple[int, int, int], size: tuple[int, int] = (8, 4), **more: Any) -> Path:
        image.new("RGB", size, color).save(tmp_path / name, **more)
        return tmp_path / name

    black, white = drawn("black.png", (0, 0, 0)), drawn("white.png", (255, 255, 255))
    grey, wide = drawn("grey.png", (51, 51, 51)), drawn("wide.png", (0, 0, 0), (9, 4))
    packed, other = drawn("packed.png", (0, 0, 0), compress_level=0), drawn("black.webp", (0, 0, 0), lossless=True)
    assert black.read_bytes() != packed.read_bytes()
    assert image_distance(black, packed) == image_distance(black, other) == 0.0
    assert image_distance(black, white) == 1.0
    assert image_distance(black, grey) == pytest.approx(0.2)
    assert image_distance(black, wide) == 1.0


def test_what_is_no_image_has_no_distance(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    good, cut, text, empty = (tmp_path / name for name in ("good.png", "cut.png", "text.png", "empty.png"))
    image.effect_noise((64, 64), 50).save(good)
    cut.write_bytes(good.read_bytes()[:200])
    text.write_text("#!/bin/sh")
    empty.write_bytes(b"")
    svg, huge = tmp_path / "a.svg", tmp_path / "huge.png"
    svg.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    head = bytearray(good.read_bytes())
    head[16:24] = (60_000).to_bytes(4, "big") * 2
    huge.write_bytes(head)
    for bad in (cut, text, empty, svg, huge):
        assert image_distance(bad, bad) is None, bad
        assert image_distance(good, bad) in (None, 1.0), bad


def test_films_are_compared_frame_by_frame(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    frames = [image.new("L", (4, 4), shade) for shade in (0, 100, 200)]
    one, other, short = (tmp_path / f"{name}.gif" for name in ("one", "other", "short"))
    frames[0].save(one, save_all=True, append_images=frames[1:])
    frames[0].save(other, save_all=True, append_images=[frames[1], image.new("L", (4, 4), 110)])
    frames[0].save(short, save_all=True, append_images=frames[1:2])
    assert image_distance(one, one) == 0.0
    assert 0 < (image_distance(one, other) or 0) < 0.2
    assert image_distance(one, short) == 1.0
