"""Which models a function may use, and which of them a call needs."""

from typing import Annotated

import msgspec
import pytest

from gen_worker import ActionContext, ModelRef, ModelRefSource, worker_function
from gen_worker.authoring.signature import FunctionSpec, read_signature
from gen_worker.errors import FatalError, FieldError, ValidationError
from gen_worker.refs import DEFAULT_DTYPES, ModelSpec
from gen_worker.sources.keyspace import MAX_SHOWN_KEYS, Keyspace


class In(msgspec.Struct):
    model: str = "sdxl"


class Out(msgspec.Struct):
    text: str = ""


class Toy:
    @classmethod
    def from_pretrained(cls, path: str) -> "Toy":
        return cls()


class Other(Toy):
    pass


@worker_function()
def chosen(ctx: ActionContext, toy: Annotated[Toy, ModelRef(ModelRefSource.PAYLOAD, "model")], payload: In) -> Out:
    return Out()


@worker_function()
def fixed(ctx: ActionContext, toy: Annotated[Toy, ModelRef(ModelRefSource.FIXED, "sdxl")], payload: In) -> Out:
    return Out()


@worker_function()
def inline(ctx: ActionContext, toy: Annotated[Toy, ModelRef(ModelRefSource.FIXED, "own", "hf:o/own", ("fp8",))], payload: In) -> Out:
    return Out()


@worker_function()
def other(ctx: ActionContext, toy: Annotated[Other, ModelRef(ModelRefSource.FIXED, "flux")], payload: In) -> Out:
    return Out()


CHOSEN, FIXED, INLINE, OTHER = (read_signature(function, __name__) for function in (chosen, fixed, inline, other))
SDXL, FLUX = ModelSpec("hf:o/sdxl"), ModelSpec("cozy:o/flux:v2", ("bf16",))
TABLE = {"sdxl": SDXL, "flux": FLUX}
KEYS = Keyspace({"chosen": TABLE, "fixed": {"sdxl": SDXL}, "other": {"flux": FLUX}})


def select(keys: Keyspace, spec: FunctionSpec, model: str = "sdxl") -> tuple[str, ModelSpec]:
    return keys.select(spec, spec.injections[0], In(model))


def test_a_payload_names_a_key_of_its_function() -> None:
    assert select(KEYS, CHOSEN, "flux") == ("flux", FLUX)
    assert select(KEYS, FIXED, "whatever the payload says") == ("sdxl", SDXL)


@pytest.mark.parametrize("model", ["sdlx", "", " ", "hf:o/sdxl", "x" * 10_000])
def test_a_wrong_key_is_named_with_those_that_are_allowed(model: str) -> None:
    with pytest.raises(ValidationError) as caught:
        select(KEYS, CHOSEN, model)
    assert "Allowed keys: flux, sdxl." in str(caught.value)
    (error,) = caught.value.errors
    assert error.pointer == "/model"
    assert error.expected == "one of sdxl, flux"
    assert error.suggestion == ("sdxl" if model == "sdlx" else error.suggestion)
    assert len(str(caught.value)) < 400


def test_without_any_model_the_message_says_where_they_are_declared() -> None:
    for spec in (CHOSEN, FIXED):
        with pytest.raises((ValidationError, FatalError), match=r"No models are configured: declare them under \[models\] in cozy.toml"):
            select(Keyspace({}), spec)


def test_of_many_keys_some_are_shown() -> None:
    many = {f"key{number:03}": SDXL for number in range(MAX_SHOWN_KEYS + 7)}
    with pytest.raises(ValidationError, match=r"key019 and 7 more\."):
        select(Keyspace({"chosen": many}), CHOSEN, "none")
    shown = dict(list(many.items())[:MAX_SHOWN_KEYS])
    with pytest.raises(ValidationError, match=r"key018, key019\.$"):
        select(Keyspace({"chosen": shown}), CHOSEN, "none")


def test_a_signature_may_bring_its_own_ref_which_the_table_overrides() -> None:
    assert select(Keyspace({}), INLINE) == ("own", ModelSpec("hf:o/own", ("fp8",)))
    assert select(Keyspace({"inline": {"own": FLUX}}), INLINE) == ("own", FLUX)
    assert ModelSpec("hf:o/own").dtypes == DEFAULT_DTYPES


def test_models_are_found_by_key_and_by_ref_in_any_form() -> None:
    for name in ("flux", "cozy:o/flux:v2", "o/flux:v2"):
        assert KEYS.find(name) == ("flux", FLUX)
    assert KEYS.find("cozy:o/flux") is None
    assert KEYS.find("") is None
    assert KEYS.refs() == {"hf:o/sdxl": ("sdxl", SDXL), "cozy:o/flux:v2": ("flux", FLUX)}
    assert KEYS.find_ref(CHOSEN, "o/flux:v2") == ("flux", FLUX)
    with pytest.raises(FatalError, match="not one that 'fixed' may use"):
        KEYS.find_ref(FIXED, "o/flux:v2")


def test_who_takes_a_model_one_parameter_for_each_type() -> None:
    functions = (CHOSEN, FIXED, OTHER)
    assert [spec.name for spec, _ in KEYS.takers(functions, "sdxl")] == ["chosen"]
    assert [(spec.name, injection.type) for spec, injection in KEYS.takers(functions, "flux")] == [("chosen", Toy), ("other", Other)]
    assert KEYS.takers(functions, "nothing") == []
    assert KEYS.takers(functions, "model") == [], "that is a field of the payload, not a model"


def test_a_release_replaces_the_tables_and_is_then_all_there_is() -> None:
    adopted = KEYS.adopted({"chosen": {"new": FLUX}}, (), {}, ("chosen", "fixed"))
    assert select(adopted, CHOSEN, "new") == ("new", FLUX)
    with pytest.raises(ValidationError):
        select(adopted, CHOSEN, "sdxl")
    with pytest.raises(FatalError, match="not configured"):
        select(adopted, FIXED)


@pytest.mark.parametrize("supported", [(), ("*",), ("",), ("hf:o/other", "*")])
def test_nothing_is_narrowed_by_nothing_or_a_star(supported: tuple[str, ...]) -> None:
    assert select(KEYS.adopted({}, supported, {}, ()), CHOSEN, "flux") == ("flux", FLUX)


def test_supported_refs_narrow_and_never_widen() -> None:
    narrowed = KEYS.adopted({}, ("o/flux:v2", "hf:o/unknown"), {"unknown": "hf:o/unknown"}, ("chosen",))
    assert select(narrowed, CHOSEN, "flux") == ("flux", FLUX)
    with pytest.raises(FatalError, match=r"model 'sdxl' \(hf:o/sdxl\) is not allowed in this release"):
        select(narrowed, CHOSEN, "sdxl")
    with pytest.raises(ValidationError):
        select(narrowed, CHOSEN, "unknown")
    with pytest.raises(FatalError):
        narrowed.find_ref(CHOSEN, "hf:o/sdxl")
    with pytest.raises(FatalError):
        select(KEYS.adopted({}, ("hf:o/x",), {}, ()), INLINE)


def test_the_flat_table_of_older_schedulers_serves_manifests_without_models() -> None:
    flat = {"sdxl": "hf:o/flat"}
    adopted = Keyspace({"chosen": {}}).adopted({}, (), flat, ("chosen", "fixed"))
    assert select(adopted, CHOSEN, "sdxl") == ("sdxl", ModelSpec("hf:o/flat"))
    assert select(adopted, FIXED) == ("sdxl", ModelSpec("hf:o/flat"))
    assert select(KEYS.adopted({}, (), flat, ("chosen",)), CHOSEN, "sdxl") == ("sdxl", SDXL)


def refusal(keys: Keyspace, spec: FunctionSpec, model: object = "sdxl") -> Exception:
    with pytest.raises((ValidationError, FatalError)) as raised:
        keys.select(spec, spec.injections[0], In(model))  # type: ignore[arg-type]
    return raised.value


def test_what_each_refusal_says() -> None:
    wrong = refusal(KEYS, CHOSEN, "sdlx")
    text = "no model 'sdlx'. Did you mean 'sdxl'? Allowed keys: flux, sdxl."
    assert isinstance(wrong, ValidationError)
    assert (str(wrong), wrong.errors) == (text, (FieldError("/model", text, "one of sdxl, flux", "sdlx", "sdxl"),))
    for model, got in (("", ""), ("  ", "  "), (5, "5"), (None, "None")):
        empty = refusal(KEYS, CHOSEN, model)
        text = "field 'model' must name a model. Allowed keys: flux, sdxl."
        assert isinstance(empty, ValidationError)
        assert (str(empty), empty.errors[0].message, empty.errors[0].got) == (text, text, got)
    long = refusal(KEYS, CHOSEN, "x" * 101)
    assert isinstance(long, ValidationError)
    assert str(long) == f"no model {'x' * 100!r}. Allowed keys: flux, sdxl."
    assert long.errors[0].got == "x" * 100
    assert str(refusal(Keyspace({"fixed": {"sdlx": SDXL}}), FIXED)) == (
        "model key 'sdxl' of 'toy' is not configured. Did you mean 'sdlx'? Allowed keys: sdlx."
    )
    assert str(refusal(Keyspace({}), FIXED)) == (
        "model key 'sdxl' of 'toy' is not configured. No models are configured: declare them under [models] in cozy.toml."
    )
    many = {f"key{number:03}": SDXL for number in range(MAX_SHOWN_KEYS + 1)}
    shown = ", ".join(list(many)[:MAX_SHOWN_KEYS])
    more = refusal(Keyspace({"chosen": many}), CHOSEN, "none")
    assert isinstance(more, ValidationError)
    assert str(more) == f"no model 'none'. Allowed keys: {shown} and 1 more."
    assert more.errors[0].expected == f"one of {shown}"
    with pytest.raises(FatalError) as raised:
        KEYS.find_ref(FIXED, "x" * 201)
    assert str(raised.value) == f"model {'x' * 200!r} is not one that 'fixed' may use. Allowed keys: sdxl."
    narrowed = refusal(KEYS.adopted({}, ("hf:o/x",), {}, ()), CHOSEN)
    assert str(narrowed) == "model 'sdxl' (hf:o/sdxl) is not allowed in this release; its supported models do not name it"


def test_what_is_found_and_what_is_not() -> None:
    assert (KEYS.keys_of("chosen"), KEYS.keys_of("nothing")) == (TABLE, {})
    assert KEYS.find("sdxl") == ("sdxl", SDXL)
    assert KEYS.find("hf:o/other") is None
    ours = Keyspace({"chosen": {"a": ModelSpec("o/flux:v2")}})
    assert ours.find("cozy:o/flux:v2") == ("a", ModelSpec("o/flux:v2"))
    assert ours.find_ref(CHOSEN, "cozy:o/flux:v2") == ("a", ModelSpec("o/flux:v2"))
    assert ours.adopted({}, ("cozy:o/flux:v2",), {}, ()).find_ref(CHOSEN, "o/flux:v2")[0] == "a"


def test_a_function_without_models_of_its_own_takes_none_of_the_flat_table_where_others_have_some() -> None:
    adopted = KEYS.adopted({}, ("",), {"new": "hf:o/new"}, ("chosen", "none"))
    assert adopted.keys_of("none") == {}
    flat = Keyspace({}).adopted({}, (), {"new": "hf:o/new"}, ("one", "two"))
    assert flat.keys_of("one") == flat.keys_of("two") == {"new": ModelSpec("hf:o/new")}
    assert Keyspace({}).adopted({}, (), {}, ("one",)).keys_of("one") == {}
