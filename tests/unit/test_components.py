"""Definitions of many schemas in one document."""

from gen_worker.http.components import Components


def schema(**definitions: object) -> dict[str, object]:
    return {"$ref": f"#/$defs/{next(iter(definitions))}", "$defs": definitions}


INT, TEXT = {"type": "integer"}, {"type": "string"}


def ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def test_equal_definitions_are_kept_once() -> None:
    components = Components({})
    assert components.adopt(schema(In=INT)) == components.adopt(schema(In=INT)) == ref("In")
    assert components.schemas == {"In": INT}


def test_another_schema_of_the_same_name_gets_a_name_of_its_own() -> None:
    components = Components({"Problem": TEXT})
    assert components.adopt(schema(In=INT)) == ref("In")
    assert components.adopt(schema(In=TEXT)) == ref("In_")
    assert components.adopt(schema(In={"type": "null"})) == ref("In__")
    assert components.adopt(schema(In=TEXT)) == ref("In_")
    assert components.adopt(schema(Problem=INT)) == ref("Problem_")
    assert components.add("In", INT) == ref("In___")


def test_who_refers_to_a_renamed_one_is_renamed_too() -> None:
    components = Components({})
    components.adopt(schema(In={"items": {"$ref": "#/$defs/Part"}}, Part=INT))
    found = components.adopt(schema(In={"items": {"$ref": "#/$defs/Part"}}, Part=TEXT))
    assert found == ref("In_")
    assert components.schemas["In_"] == {"items": ref("Part_")}
    assert components.schemas["In"] == {"items": ref("Part")}


def test_circles_unions_and_values_of_the_author() -> None:
    components = Components({"Node": INT})
    value = {"$ref": "#/$defs/Node"}
    node = {
        "properties": {"child": {"$ref": "#/$defs/Node"}, "$ref": TEXT},
        "default": value,
        "anyOf": [{"$ref": "#/$defs/Leaf"}],
        "discriminator": {"propertyName": "type", "mapping": {"leaf": "#/$defs/Leaf"}},
    }
    assert components.adopt(schema(Node=node, Leaf=TEXT)) == ref("Node_")
    kept = components.schemas["Node_"]
    assert kept["properties"] == {"child": ref("Node_"), "$ref": TEXT}
    assert kept["default"] == value
    assert kept["anyOf"] == [ref("Leaf")]
    assert kept["discriminator"]["mapping"] == {"leaf": "#/components/schemas/Leaf"}
