"""Laws that hold for any input."""

import json
import string
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gen_worker.dev.runs import DevRun
from gen_worker.errors import ValidationError
from gen_worker.events import RunEvent
from gen_worker.execution.payloads import read_payload
from gen_worker.files.local_outputs import LocalOutputs, normalize_output_ref
from gen_worker.http.sse import frame, last_event_id
from gen_worker.names import slugify
from gen_worker.outcome import scrub
from gen_worker.project.cozy_toml import CozyTomlError, load_cozy_toml
from gen_worker.refs import parse_model_ref
from gen_worker.residency.accounting import ModelCache

NAMES = st.text(string.ascii_letters + string.digits + "._- ", min_size=1, max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


class Leaf(msgspec.Struct):
    number: int
    text: str = "x"


class Tree(msgspec.Struct):
    leaves: list[Leaf]
    named: dict[str, float] = {}
    flag: bool | None = None


@given(st.text(max_size=300))
def test_a_slug_is_url_safe_and_its_own_slug(text: str) -> None:
    try:
        slug = slugify(text)
    except ValueError:
        return
    assert slug
    assert len(slug) <= 128
    assert set(slug) <= set(string.ascii_lowercase + string.digits + "-.")
    assert slugify(slug) == slug


@given(
    st.text(max_size=200) | st.from_regex(r"(hf:|cozy:)?[a-zA-Z0-9._-]{1,8}/[a-zA-Z0-9._-]{1,8}([:@][a-z0-9:./]{0,12})?", fullmatch=True)
)
@example("0/0:0..")
def test_a_ref_that_parses_prints_to_itself(text: str) -> None:
    try:
        ref = parse_model_ref(text)
    except ValueError:
        return
    assert parse_model_ref(ref.canonical()) == ref
    assert ".." not in ref.canonical()


@given(
    st.builds(
        Tree,
        leaves=st.lists(st.builds(Leaf, number=st.integers(), text=st.text())),
        named=st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False)),
    )
)
def test_payloads_survive_both_encodings(value: Tree) -> None:
    assert read_payload(Tree, msgspec.json.encode(value), "json").value == value
    small = all(-(2**63) <= leaf.number < 2**64 for leaf in value.leaves)
    if small:
        assert read_payload(Tree, msgspec.msgpack.encode(value), "msgpack").value == value


@given(JSON)
def test_any_json_is_a_payload_or_a_validation_error_with_a_pointer(value: object) -> None:
    try:
        assert isinstance(read_payload(Tree, json.dumps(value).encode()).value, Tree)
    except ValidationError as exc:
        for error in exc.errors:
            assert error.pointer == "" or error.pointer.startswith("/")


@given(st.binary(max_size=300))
def test_any_bytes_are_a_payload_or_a_validation_error(data: bytes) -> None:
    for encoding in ("json", "msgpack"):
        try:
            read_payload(Tree, data, encoding)
        except ValidationError as exc:
            assert str(exc)


@given(NAMES, NAMES, st.sampled_from(["fp16", "bf16", "fp8"]))
@settings(max_examples=50)
def test_cozy_toml_gives_back_what_was_written(tmp_path_factory: pytest.TempPathFactory, name: str, key: str, dtype: str) -> None:
    path = tmp_path_factory.mktemp("law") / "cozy.toml"
    path.write_text(
        f'schema_version = 1\nname = {json.dumps(name)}\nmain = "m"\ngen_worker = ">=0.2"\n'
        f'[models]\n{json.dumps(key)} = {{ ref = "hf:o/r", dtypes = ["{dtype}"] }}\n'
    )
    try:
        found = load_cozy_toml(path)
    except CozyTomlError:
        assert not key.strip() or not any(char.isalnum() for char in name)
        return
    assert found.name == name.strip()
    assert found.models[key].dtypes == (dtype,)


@given(st.binary(max_size=400))
@settings(max_examples=100)
def test_any_file_is_a_cozy_toml_or_an_error_of_ours(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("law") / "cozy.toml"
    path.write_bytes(data)
    with pytest.raises(CozyTomlError):
        load_cozy_toml(path)


@given(st.lists(JSON, max_size=30), st.integers(0, 40))
def test_a_resumed_stream_has_no_gap_and_no_repeat(payloads: list[object], cut: int) -> None:
    run = DevRun("r", "f")
    for payload in payloads:
        run.emit(RunEvent("custom.event", payload))
    first, seen = run.log.after(0)
    assert first == 1
    assert [event.payload for event in seen] == payloads
    at = min(cut, len(payloads))
    resumed_first, resumed = run.log.after(last_event_id(str(at)))
    assert resumed_first == at + 1
    assert [event.payload for event in seen[:at] + resumed] == payloads


@given(st.integers(1, 10**9), JSON)
def test_a_frame_is_one_event(seq: int, value: object) -> None:
    text = frame(seq, "output", json.dumps(value, indent=1).encode()).decode()
    assert text.endswith("\n\n")
    lines = text[:-2].split("\n")
    assert lines[:2] == [f"id: {seq}", "event: output"]
    assert json.loads("\n".join(line.removeprefix("data: ") for line in lines[2:])) == value


@given(st.text(max_size=60) | st.lists(st.sampled_from(["..", ".", "a", "b\\c", "", "%2e%2e", "C:", "~"]), max_size=8).map("/".join))
def test_an_output_ref_never_leaves_its_folder(tmp_path_factory: pytest.TempPathFactory, ref: str) -> None:
    root = tmp_path_factory.getbasetemp() / "outputs"
    try:
        normal = normalize_output_ref(ref)
        path = LocalOutputs(root).path_of(ref)
    except ValueError:
        return
    assert normalize_output_ref(normal) == normal
    assert path.resolve().is_relative_to(root.resolve())
    assert path.resolve() != root.resolve()


@given(st.text(max_size=2000))
def test_safe_messages_are_bounded_and_printable(text: str) -> None:
    safe = scrub(text)
    assert len(safe) <= 500
    assert all(char.isprintable() or char == "\n" for char in safe)


OPERATIONS = st.lists(st.tuples(st.sampled_from("lpudxe"), st.sampled_from("abcd"), st.integers(0, 12)), max_size=40)


@given(OPERATIONS)
def test_the_ledger_never_exceeds_the_card_nor_drops_a_pinned_model(operations: list[tuple[str, str, int]]) -> None:
    cache = ModelCache(max_vram_gb=20)
    pins = dict.fromkeys("abcd", 0)
    sizes: dict[str, int] = {}
    for operation, name, size in operations:
        if operation == "l":
            try:
                cache.mark_loaded_to_vram(name, object(), size)
                sizes[name] = size
            except ValueError:
                pass
        elif operation == "p" and cache.is_in_vram(name):
            cache.pin(name)
            pins[name] += 1
        elif operation == "u" and pins[name]:
            cache.unpin(name)
            pins[name] -= 1
        elif operation == "d" and not pins[name]:
            cache.mark_cached_to_disk(name, Path("/nowhere"), size)
        elif operation == "x":
            cache.unload_from_vram(name)
        elif operation == "e":
            cache.evict_lru_vram_until_count(size % 3)
        stats = cache.get_stats()
        assert stats.vram_used_gb <= 20
        assert stats.vram_used_gb == sum(sizes[model] for model in cache.get_vram_models())
        assert all(cache.is_in_vram(model) for model, count in pins.items() if count)
