"""What differs between two releases of a function, and which differences break its callers.

Callers write the payload and read the output. So a new release may accept more payloads and return more fields. If it accepts less,
existing callers are refused; if it returns something else, they cannot read it. Schemas are JSON Schema as discovery writes it.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from gen_worker.contract.manifest import FunctionEntry, Manifest
from gen_worker.texts import counted

Schema = dict[str, Any]
Side = Literal["input", "output"]
_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_FORM = ("pattern", "format", "contentEncoding", "multipleOf")


class Change(msgspec.Struct, frozen=True):
    """One difference. `pointer` is a JSON Pointer into the payload or the output (`/size`, `/items/*`), empty for all
    of it.

    For a variable of `[env]`, `pointer` is its name and `function` is empty.
    """

    function: str
    side: Literal["function", "input", "output", "env"]
    pointer: str
    text: str
    breaking: bool


def changes(old: Manifest, new: Manifest) -> list[Change]:
    """The changes from one release to another, by function; breaking ones first."""
    before, after = {entry.name: entry for entry in old.callables}, {entry.name: entry for entry in new.callables}
    found: list[Change] = []
    for name in sorted({*before, *after}):
        if name not in after:
            found.append(Change(name, "function", "", "the function is gone", True))
        elif name not in before:
            found.append(Change(name, "function", "", "the function is new", False))
        elif old.is_websocket(name) != new.is_websocket(name):
            text = "it is a websocket now" if new.is_websocket(name) else "it is no longer a websocket"
            found.append(Change(name, "function", "", text, True))
        else:
            found += function_changes(before[name], after[name])
    found += _variable_changes(old.env or {}, new.env or {})
    return sorted(found, key=lambda change: not change.breaking)


def _variable_changes(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[Change]:
    """Changes of `[env]`. Values are not shown, because one may be a misplaced secret."""
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            text = "the variable is gone" if name not in new else "the variable is new" if name not in old else "it has another value"
            yield Change("", "env", name, text, False)


def function_changes(old: FunctionEntry, new: FunctionEntry) -> list[Change]:
    """The changes from one release of a function to another."""
    found = [*_Comparison(new.name, "input", old.input_schema, new.input_schema).run()]
    if old.output_mode != new.output_mode:
        text = "it streams now" if new.output_mode == "incremental" else "it no longer streams"
        return [*found, Change(new.name, "output", "", text, True)]
    return [*found, *_Comparison(new.name, "output", old.output_schema, new.output_schema).run()]


class _Comparison:
    def __init__(self, function: str, side: Side, old: Schema, new: Schema) -> None:
        self._function = function
        self._side: Side = side
        self._old, self._new = old, new
        self._seen: set[tuple[str, str]] = set()

    def run(self) -> Iterator[Change]:
        return self._compare(self._old, self._new, "")

    def _compare(self, old: Schema, new: Schema, pointer: str) -> Iterator[Change]:
        names = (old.get("$ref", ""), new.get("$ref", ""))
        if all(names):
            if names in self._seen:
                return  # a recursive type
            self._seen.add(names)
        befores, afters = _kinds(old, self._old), _kinds(new, self._new)
        if "any" in afters and "any" not in befores:
            yield self._wider(pointer, "any value is allowed now")
        elif "any" in befores and "any" not in afters:
            yield self._narrower(pointer, f"only {_named(afters)} now, where anything was possible")
        else:
            for kind in befores:
                if kind not in afters and not (kind == "integer" and "number" in afters):
                    yield self._narrower(pointer, f"{kind} is no longer allowed, only {_named(afters)}")
            for kind in afters:
                if kind not in befores and not (kind == "integer" and "number" in befores):
                    yield self._wider(pointer, f"{kind} is possible now, beside {_named(befores)}")
        for kind in befores:
            if kind in afters:
                yield from self._same_kind(befores[kind], afters[kind], pointer)
        if "default" in old and "default" in new and old["default"] != new["default"]:
            yield self._change(pointer, f"the default is {_shown(new['default'])}; it was {_shown(old['default'])}", breaking=False)

    def _same_kind(self, old: Schema, new: Schema, pointer: str) -> Iterator[Change]:
        yield from self._values(old, new, pointer)
        yield from self._bounds(old, new, pointer)
        if "properties" in old or "properties" in new:
            yield from self._fields(old, new, pointer)
        for name in ("items", "additionalProperties"):
            before, after = old.get(name), new.get(name)
            if isinstance(before, dict) and isinstance(after, dict):
                yield from self._compare(before, after, f"{pointer}/*")
        befores, afters = old.get("prefixItems", ()), new.get("prefixItems", ())
        if len(befores) != len(afters):
            yield self._change(pointer, f"it has {counted(len(afters), 'place')}; it had {len(befores)}", breaking=True)
        else:
            for place, (before, after) in enumerate(zip(befores, afters, strict=True)):
                yield from self._compare(before, after, f"{pointer}/{place}")

    def _values(self, old: Schema, new: Schema, pointer: str) -> Iterator[Change]:
        befores, afters = _allowed(old), _allowed(new)
        if befores is None and afters is None:
            return
        if befores is None or afters is None:
            text = "any value is possible now" if afters is None else f"only {_listed(afters)} now"
            yield self._wider(pointer, text) if afters is None else self._narrower(pointer, text)
            return
        gone, added = [each for each in befores if each not in afters], [each for each in afters if each not in befores]
        if gone:
            yield self._narrower(pointer, f"{_listed(gone)} is no longer allowed; allowed: {_listed(afters)}")
        if added:
            yield self._wider(pointer, f"{_listed(added)} is possible now")

    def _bounds(self, old: Schema, new: Schema, pointer: str) -> Iterator[Change]:
        for names, sign in ((_LOWER, 1), (_UPPER, -1)):
            for name in names:
                before, after = old.get(name), new.get(name)
                if before == after or ("prefixItems" in new and name in ("minItems", "maxItems")):
                    continue  # the elements of a tuple are compared below
                is_tighter = after is not None and (before is None or (after - before) * sign > 0)
                text = f"{name} is {after if after is not None else 'gone'}; it was {before if before is not None else 'not set'}"
                # Callers must expect any size of an output, so a new limit or size of an output breaks nothing.
                yield self._change(pointer, text, breaking=is_tighter and self._side == "input")
        for name in _FORM:
            before, after = old.get(name), new.get(name)
            if before != after:
                now, then = (_shown(each) if each is not None else "not set" for each in (after, before))
                breaking = after is not None if self._side == "input" else before is not None
                yield self._change(pointer, f"{name} is {now}; it was {then}", breaking=breaking)

    def _fields(self, old: Schema, new: Schema, pointer: str) -> Iterator[Change]:
        befores, afters = old.get("properties", {}), new.get("properties", {})
        needed, was_needed = set(new.get("required", ())), set(old.get("required", ()))
        for name in befores:
            if name not in afters:
                yield self._change(_below(pointer, name), "the field is gone", breaking=True)
        for name, after in afters.items():
            place = _below(pointer, name)
            if name not in befores:
                if self._side == "input" and name in needed:
                    yield self._change(place, "a new field that every payload must have", breaking=True)
                else:
                    yield self._change(place, "a new field", breaking=False)
                continue
            if self._side == "input" and (name in needed) != (name in was_needed):
                text = "every payload must have the field now" if name in needed else "the field may be left out now"
                yield self._change(place, text, breaking=name in needed)
            yield from self._compare(befores[name], after, place)

    def _wider(self, pointer: str, text: str) -> Change:
        return self._change(pointer, text, breaking=self._side == "output")

    def _narrower(self, pointer: str, text: str) -> Change:
        return self._change(pointer, text, breaking=self._side == "input")

    def _change(self, pointer: str, text: str, *, breaking: bool) -> Change:
        return Change(self._function, self._side, pointer, text, breaking)


def _kinds(schema: Schema, whole: Schema) -> dict[str, Schema]:
    """The possible kinds of a value, by JSON type; objects of several named types by their names."""
    found: dict[str, Schema] = {}
    for each in schema.get("anyOf") or schema.get("oneOf") or (schema,):
        resolved = _resolved(each, whole)
        if resolved is not each and ("anyOf" in resolved or "oneOf" in resolved):
            found |= _kinds(resolved, whole)
            continue
        types = resolved.get("type", _type_of_values(resolved))
        for kind in types if isinstance(types, list) else [types]:
            name = kind if kind not in found else f"{kind} {resolved.get('title', len(found))}"
            found[name] = resolved
    return found


def _type_of_values(schema: Schema) -> str:
    values = _allowed(schema)
    if not values:
        return "any"
    names = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
    return names.get(type(values[0]), "any")


def _resolved(schema: Schema, whole: Schema) -> Schema:
    for _ in range(64):
        if "$ref" not in schema:
            return schema
        schema = whole.get("$defs", {}).get(schema["$ref"].rpartition("/")[2], {})
    return schema


def _allowed(schema: Schema) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _below(pointer: str, name: str) -> str:
    return f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"


def _named(kinds: dict[str, Schema]) -> str:
    return " or ".join(kinds)


def _listed(values: list[Any]) -> str:
    return ", ".join(_shown(each) for each in values[:12]) + (", ..." if len(values) > 12 else "")


def _shown(value: Any) -> str:
    return msgspec.json.encode(value).decode()[:100]
