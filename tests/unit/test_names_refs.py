"""Slugs and model refs."""

import pytest

from gen_worker.names import is_run_id, nearest, slugify
from gen_worker.refs import CozyRef, HuggingFaceRef, canonical_ref, parse_model_ref


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("medasr_transcribe", "medasr-transcribe"),
        ("My Cool_Project", "my-cool-project"),
        ("image__worker", "image-worker"),
        ("v1.5", "v1.5"),
        ("-a.", "a"),
        ("naïve", "na-ve"),
        ("x" * 200, "x" * 128),
    ],
)
def test_slugs(name: str, slug: str) -> None:
    assert slugify(name) == slug


@pytest.mark.parametrize("text", ["a", "A9", "run-1.2_x", "x" * 128, "0..", "a--"])
def test_ids_that_may_name_a_run(text: str) -> None:
    assert is_run_id(text)


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "-a", "_a", ".a", "a/b", "a\\b", "/a", "a b", "a\n", "\na", "a\x00", "ä", "a:b", "a~b", "a%2e", "\u0661", "x" * 129],
)
def test_ids_that_may_not(text: str) -> None:
    assert not is_run_id(text)


def test_a_name_without_letters_is_refused() -> None:
    with pytest.raises(ValueError, match="no URL-safe name"):
        slugify("???")


def test_nearest_knows_typing_errors() -> None:
    assert nearest("sdlx", ["sdxl", "flux"]) == "sdxl"
    assert nearest("qqqq", ["sdxl", "flux"]) is None


@pytest.mark.parametrize(
    ("text", "parsed", "canonical"),
    [
        ("hf:owner/repo", HuggingFaceRef("owner/repo"), "hf:owner/repo"),
        ("HF:Owner/Repo@main", HuggingFaceRef("Owner/Repo", "main"), "hf:Owner/Repo@main"),
        ("hf:hf:owner/repo", HuggingFaceRef("owner/repo"), "hf:owner/repo"),
        ("owner/repo", CozyRef("owner", "repo"), "cozy:owner/repo:latest"),
        ("cozy:owner/repo", CozyRef("owner", "repo"), "cozy:owner/repo:latest"),
        ("owner/repo:v2", CozyRef("owner", "repo", "v2"), "cozy:owner/repo:v2"),
        ("o/r@blake3:" + "AB" * 32, CozyRef("o", "r", digest="blake3:" + "ab" * 32), "cozy:o/r@blake3:" + "ab" * 32),
    ],
)
def test_refs(text: str, parsed: object, canonical: str) -> None:
    assert parse_model_ref(text) == parsed
    assert canonical_ref(text) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hf:",
        "owner",
        "hf:a/b@../..",
        "cozy:x/y@blake3:../",
        "o/r@md5:00",
        "o/r@sha256:",
        "cozy:a/b@sha256:abcd",
        "cozy:a/b@sha256:" + "ab" * 31,
        "cozy:a/b@blake3:" + "ab" * 33,
        "cozy:a/b@blake3:" + "zz" * 32,
        "hf:../../x",
        "a\0b",
        "a/b\0",
        "cozy:" + "a" * 5000,
        "a/b/c",
        "a b/c",
        "hf:a/" + "b" * 10000,
        "o/r:",
        "а/b",
    ],
)
def test_what_is_no_ref_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="model ref"):
        parse_model_ref(text)
