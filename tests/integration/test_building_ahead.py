"""Models are built without their weights before they are needed: equal to the libraries' own, once each, and without delaying runs."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Runner
from tests.integration.test_reloading import LANGUAGE, MODELS, PIPELINES, modules_of
from tests.loading import DEVICE, same_modules
from tests.waiting import until

from gen_worker.residency.loaders.base import LoadControl, LoadPlan, LoadRequest
from gen_worker.residency.loaders.diffusers import DiffusersLoader
from gen_worker.residency.loaders.skeletons import Skeletons
from gen_worker.residency.loaders.transformers import TransformersLoader

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.torch
CODE = """
from diffusers import StableDiffusionPipeline

class In(msgspec.Struct):
    pass

class Out(msgspec.Struct):
    parts: int

@worker_function()
def count(ctx: ActionContext, pipe: Annotated[StableDiffusionPipeline, ModelRef(ModelRefSource.FIXED, "m")], payload: In) -> Out:
    return Out(len(modules(pipe)))

def modules(pipe):
    return [part for part in pipe.components.values() if part is not None]
"""
QUIET = LoadControl(lambda size_bytes: None, threading.Event())


def idle() -> int:
    return 0


def plan_of(kind: Any, folder: Path, skeletons: Skeletons, dtypes: Sequence[str] = ("fp32",)) -> LoadPlan:
    loader = DiffusersLoader() if kind.__module__.startswith("diffusers") else TransformersLoader()
    return loader.plan(LoadRequest(kind, folder, lambda: DEVICE, tuple(dtypes), skeletons=skeletons))


def build(plan: LoadPlan) -> int:
    return sum(part.build_ahead(idle) for part in plan.parts if part.build_ahead is not None)


def load(plan: LoadPlan) -> Any:
    return plan.assemble({part.part_id: part.load(QUIET)[0] for part in plan.parts}).model


@pytest.mark.parametrize("name", PIPELINES)
def test_pipelines_that_were_built_ahead(tmp_path: Path, name: str) -> None:
    folder, skeletons = PIPELINES[name](tmp_path / "model"), Skeletons()
    kind = diffusers.DiffusionPipeline
    plan = plan_of(kind, folder, skeletons)
    assert build(plan) == len(plan.parts)
    assert skeletons.host_bytes > 0
    assert build(plan) == 0, "once each"
    ours, theirs = load(plan), kind.from_pretrained(folder)
    assert skeletons.host_bytes == 0, "all were taken"
    for part, module in modules_of(theirs).items():
        same_modules(modules_of(ours)[part], module.eval())
    sizes = {part.part_id: part.load(QUIET)[1] for part in plan_of(kind, folder, Skeletons()).parts}
    again = plan_of(kind, folder, built := Skeletons())
    build(again)
    assert {part.part_id: part.load(QUIET)[1] for part in again.parts} == sizes, "and they take as much of the device"
    assert built.host_bytes == 0


@pytest.mark.parametrize("name", LANGUAGE)
def test_language_models_that_were_built_ahead(tmp_path: Path, name: str) -> None:
    make, class_name = LANGUAGE[name]
    kind, folder, skeletons = getattr(transformers, class_name), make(tmp_path / "model"), Skeletons()
    plan = plan_of(kind, folder, skeletons)
    assert build(plan) == 1
    theirs = kind.from_pretrained(folder, dtype=torch.float32).eval()
    same_modules(load(plan), theirs)
    skeletons.strip(plan.parts[0].part_id)
    same_modules(load(plan), theirs)


def test_a_load_takes_what_is_being_built_for_it(tmp_path: Path) -> None:
    """A load that comes in the middle of the building waits for its end, and builds nothing itself."""
    folder, skeletons = LANGUAGE["llama"][0](tmp_path / "model"), Skeletons()
    kind, begun, go_on = transformers.LlamaForCausalLM, threading.Event(), threading.Event()

    def works() -> int:  # asked between two small pieces of work
        begun.set()
        assert go_on.wait(60)
        return 0

    (part,) = plan_of(kind, folder, skeletons).parts
    assert part.build_ahead is not None
    found: list[Any] = []
    builder = threading.Thread(target=part.build_ahead, args=(works,))
    loading = threading.Thread(target=lambda: found.append(part.load(QUIET)[0]))
    builder.start()
    if not begun.wait(60):
        pytest.fail("the building never asked whether functions work")
    loading.start()
    go_on.set()
    builder.join(60)
    loading.join(60)
    assert len(found) == 1
    assert skeletons.host_bytes == 0
    same_modules(found[0], kind.from_pretrained(folder, dtype=torch.float32).eval())


def test_what_cannot_be_built_is_left_to_the_load(tmp_path: Path) -> None:
    """A file with a tensor that its module does not have: the library's own loading says so, as ever."""
    folder, skeletons = LANGUAGE["llama"][0](tmp_path / "model"), Skeletons()
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"vocab_size": 131', '"vocab_size": 130'))
    plan = plan_of(transformers.LlamaForCausalLM, folder, skeletons)
    assert build(plan) == 0
    assert skeletons.host_bytes == 0
    assert build(plan) == 0


def test_no_more_is_built_ahead_than_half_of_the_bound(tmp_path: Path) -> None:
    folder, skeletons = LANGUAGE["llama"][0](tmp_path / "model"), Skeletons(limit_bytes=600_000)
    built = 0
    for number in range(8):
        (folder / "extra_config.json").write_text(str(number))  # another identity each time
        built += build(plan_of(transformers.LlamaForCausalLM, folder, skeletons))
    assert 1 <= built < 8
    assert skeletons.host_bytes <= 600_000


def test_the_dev_runner_builds_what_is_here(start_runner: Callable[..., Runner], project: Callable[..., Path]) -> None:
    folder = project(CODE, '[models]\nm = { ref = "hf:some/model", dtypes = ["fp32"] }\n')
    runner = start_runner(folder, "--model", f"m={MODELS / 'digits-sd'}")
    until(lambda: "ahead of its first load" in runner.log.read_text(), 90, runner.log.read_text)
    assert runner.run("count").json()["output"] == {"parts": 5}
