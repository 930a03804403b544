"""Names of loaded models, as values and as text."""

import pytest

from gen_worker.residency.forms import FormId, model_of


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (FormId("hf:o/r@main"), "hf:o/r@main"),
        (FormId("hf:o/r", "Pipe"), "hf:o/r#Pipe"),
        (FormId("hf:o/r", "Pipe", "1a2b3c4d"), "hf:o/r#Pipe#1a2b3c4d"),
        (FormId("hf:o/r", "Pipe", "", 1), "hf:o/r#Pipe#@1"),
        (FormId("cozy:o/r:v2", "Pipe", "1a2b3c4d", 12), "cozy:o/r:v2#Pipe#1a2b3c4d#@12"),
        (FormId("by hand"), "by hand"),
    ],
)
def test_a_name_is_read_as_it_was_written(form: FormId, text: str) -> None:
    assert str(form) == text
    assert FormId.read(text) == form
    assert model_of(text) == form.model_id
    assert str(form.form) == str(FormId(form.model_id, form.type_name))


def test_forms_of_types() -> None:
    assert FormId.of("m", int) == FormId("m", "int")
    assert FormId.of("m", int | str).type_name == "int | str"
