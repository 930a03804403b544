"""Discovery and the loaders agree about which types of parameters can be loaded."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest

from gen_worker import ActionContext, LoraAdapter, ModelRef, ModelRefSource, worker_function
from gen_worker.authoring.signature import SignatureError, read_signature
from gen_worker.project.injectable import _fix, check_injections, is_injectable
from gen_worker.project.standins import _make
from gen_worker.residency.loaders.base import LoadRequest
from gen_worker.residency.manager import DEFAULT_LOADERS


class Engine:
    pass


class Loadable:
    @classmethod
    def from_pretrained(cls, path: str) -> "Loadable":
        return cls()


class In(msgspec.Struct):
    text: str = ""


Session = type("InferenceSession", (), {"__module__": "onnxruntime.capi"})
Other = type("Other", (), {"__module__": "onnxruntime.capi"})
Pipeline = type("Pipeline", (), {"__module__": "transformers.pipelines.base"})


def load_engine(path: Path) -> Engine:
    return Engine()


@pytest.mark.parametrize("own", [{}, {Engine: load_engine}])
@pytest.mark.parametrize(
    "annotation", [Path, LoraAdapter, Engine, Loadable, Session, Other, Pipeline, str, dict[str, int], Any, "text", None]
)
def test_both_say_the_same(annotation: Any, own: dict[Any, Any]) -> None:
    request = LoadRequest(annotation, Path("x"), lambda: None, (), own_loaders=own)
    assert is_injectable(annotation, own) == any(loader.accepts(request) for loader in DEFAULT_LOADERS)


def test_a_type_whose_package_is_not_here_is_not_judged() -> None:
    assert is_injectable(_make("some_library", "Model"), {})


def test_a_type_that_nothing_loads_is_refused_with_what_to_do() -> None:
    @worker_function()
    def draw(ctx: ActionContext, pipe: Annotated[Pipeline, ModelRef(ModelRefSource.FIXED, "m")], payload: In) -> In:
        return payload

    with pytest.raises(SignatureError) as caught:
        check_injections(read_signature(draw))
    assert "no loader for the type of 'pipe', Pipeline; expected a diffusers pipeline" in str(caught.value)
    assert "inject its parts, such as AutoModelForCausalLM and AutoTokenizer" in str(caught.value)


def test_a_pipeline_without_a_task_is_refused_with_those_that_have_one() -> None:
    pipelines = pytest.importorskip("transformers.pipelines")
    for kind in (pipelines.Pipeline, type("Mine", (pipelines.Pipeline,), {})):
        assert not is_injectable(kind, {})
        assert "annotate it with the pipeline of a task (AnyToAnyPipeline, AudioClassificationPipeline, " in _fix(kind, kind.__name__)
    assert not is_injectable(pipelines.pipeline, {})  # the function
    assert "annotate it with the pipeline of a task (AnyToAnyPipeline, " in _fix(pipelines.pipeline, "pipeline")
    assert is_injectable(pipelines.TextGenerationPipeline, {})
    assert is_injectable(type("Mine", (pipelines.TextGenerationPipeline,), {}), {})
