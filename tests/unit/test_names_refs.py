"""Slugs and model refs."""

import pytest

from gen_worker.names import did_you_mean, is_run_id, is_secret_name, is_tag, nearest, slugify, whole_number
from gen_worker.refs import CozyRef, HuggingFaceRef, ModelSpec, canonical_ref, parse_model_ref


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
        ("x" * 127 + "_y", "x" * 127),  # a dash where it is cut off
        ("_" + "x" * 130, "x" * 128),  # what is trimmed in front takes no room
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


@pytest.mark.parametrize(
    ("name", "slug"), [("--.a.--", "a"), ("Ünder the Sea!", "nder-the-sea"), ("a" * 127 + "-b", "a" * 127), ("a..b", "a..b")]
)
def test_more_slugs(name: str, slug: str) -> None:
    assert slugify(name) == slug


def test_what_names_say() -> None:
    with pytest.raises(ValueError, match="name") as raised:
        slugify("-?-")
    assert str(raised.value) == "name '-?-' has no letter a-z or digit in it, so no URL-safe name can be made of it"
    assert did_you_mean("sdlx", ["flux", "sdxl"]) == " Did you mean 'sdxl'?"
    assert did_you_mean("sdlx", []) == did_you_mean("x", ["y"]) == ""
    assert (nearest("abcde", ["abcxx"]), nearest("abcde", ["abxxx"])) == ("abcxx", None)
    assert (whole_number("12"), whole_number("\u00b2"), whole_number(""), whole_number("1" * 19), whole_number("1" * 20)) == (
        12, None, None, int("1" * 19), None,
    )  # fmt: skip


def test_what_is_no_ref() -> None:
    forms = (
        "expected hf:owner/repo, hf:owner/repo@revision, cozy:owner/repo, cozy:owner/repo:tag, cozy:owner/repo@sha256:<64 hex digits> "
        "or @blake3:<64 hex digits>"
    )
    for text in (
        "hf:owner",
        "hf:a/..",
        "hf:a/b@",
        "hf:a/b@../x",
        "hf:a/b@..",
        "a/b:",
        "a/b:-",
        "a/b@sha256:00",
        "a/b@md5:" + "0" * 64,
        "a..b/c",
        "x:a/b",
        "",
    ):
        with pytest.raises(ValueError, match="ref") as raised:
            parse_model_ref(text)
        assert str(raised.value) == f"cannot read model ref {text!r}; {forms}"
        assert canonical_ref(text) == text
    parse_model_ref("hf:" + "a" * 100 + "/" + "b" * 100 + "@" + "c" * 200)
    with pytest.raises(ValueError, match=r"model ref of 513 characters; at most 512 are allowed"):
        parse_model_ref("x" * 513)
    with pytest.raises(ValueError, match="cannot read"):
        parse_model_ref("x" * 512)
    with pytest.raises(ValueError, match="dtypes") as raised:
        ModelSpec.checked("o/r", ("fp16", "int3", "x"))
    assert str(raised.value) == "invalid dtypes 'int3', 'x'; allowed are fp16, bf16, fp8, fp32, int8, int4"
    assert ModelSpec.checked("o/r", ["int4"]) == ModelSpec("o/r", ("int4",))
    assert ModelSpec.checked("o/r").dtypes == ("fp16", "bf16")
    with pytest.raises(ValueError, match="cannot read model ref 'o'"):
        ModelSpec.checked("o")


def test_more_refs() -> None:
    assert parse_model_ref(" HF:hf:o/r@a/b ") == HuggingFaceRef("o/r", "a/b")
    assert parse_model_ref("COZY:o/r:t").canonical() == "cozy:o/r:t"
    assert parse_model_ref("hf/r") == CozyRef("hf", "r")
    assert CozyRef("o", "r").repo_id() == "o/r"
    pinned = CozyRef("o", "r", "latest", "sha256:" + "ab" * 32)
    assert parse_model_ref("o/r@sha256:" + "AB" * 32) == pinned
    assert pinned.canonical() == "cozy:o/r@sha256:" + "ab" * 32


def test_names_of_secrets() -> None:
    for name in ("OPENAI_API_KEY", "_x", "a", "A" * 64, "MY_PATH", "HF_TOKEN"):
        assert is_secret_name(name)
    for name in ("", "1A", "A-B", "A B", "A" * 65, "\u00c4", "PATH", "path", "LD_PRELOAD", "Worker_JWT", "COZY_HUB_TOKEN", "a="):
        assert not is_secret_name(name)


def test_names_of_tags() -> None:
    for name in ("prod", "v1.2", "a" * 64, "0", "a_b-c"):
        assert is_tag(name)
    for name in ("", "Prod", ".a", "-a", "a" * 65, "a/b", "a b"):
        assert not is_tag(name)
