"""What each run gets of a shared pipeline: its own new scheduler."""

import copy
from pathlib import Path
from typing import Any

import pytest

from gen_worker.residency.loaders.run_views import RunViews

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")]  # of some schedulers

MODELS = Path(__file__).parents[2] / "examples/models"
SCHEDULERS = (
    "DDIMScheduler", "DDPMScheduler", "DEISMultistepScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler", "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler", "LCMScheduler", "LMSDiscreteScheduler", "PNDMScheduler", "UniPCMultistepScheduler",
)  # fmt: skip


@pytest.fixture(scope="module")
def digits() -> Any:
    return diffusers.StableDiffusionPipeline.from_pretrained(MODELS / "digits-sd", local_files_only=True)


def state(value: Any) -> Any:
    """An object's attributes in a form that can be compared."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), repr(value.tolist())  # NaN is not equal to itself
    if hasattr(value, "tolist"):
        return repr(value.tolist())
    if isinstance(value, dict):
        return {key: state(item) for key, item in value.items()}
    return [state(item) for item in value] if isinstance(value, (list, tuple)) else value


def used_up(scheduler: Any) -> None:
    """Some steps, and then every value that can be changed in place."""
    scheduler.set_timesteps(8)
    latents = torch.ones(1, 4, 8, 8)
    for timestep in scheduler.timesteps[:4]:
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(latents, timestep)
        latents = scheduler.step(latents, timestep, latents).prev_sample
    for value in vars(scheduler).values():
        if isinstance(value, torch.Tensor):
            value.fill_(7)
        elif isinstance(value, list):
            value.append(7)
        elif hasattr(value, "tolist"):
            value[...] = 7


@pytest.mark.parametrize("name", SCHEDULERS)
def test_no_run_sees_what_another_did_to_its_scheduler(digits: Any, name: str) -> None:
    pipe = copy.copy(digits)
    pipe.scheduler = getattr(diffusers, name).from_config(digits.scheduler.config)
    views = RunViews(pipe)
    new = type(pipe.scheduler).from_config(pipe.scheduler.config)
    first, beside = views(), views()
    used_up(first.scheduler)
    for view in (beside, views()):
        assert type(view.scheduler) is type(new)
        assert state(vars(view.scheduler)) == state(vars(new))
        assert view.scheduler is not pipe.scheduler
        assert view.unet is pipe.unet
        assert view.config == pipe.config


def test_a_scheduler_that_was_exchanged_is_the_next_views(digits: Any) -> None:
    pipe = copy.copy(digits)
    views = RunViews(pipe)
    pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(digits.scheduler.config)
    assert type(views().scheduler) is diffusers.EulerDiscreteScheduler
    pipe.scheduler.register_to_config(num_train_timesteps=500)
    assert views().scheduler.config.num_train_timesteps == 500


def test_a_scheduler_that_cannot_be_copied_is_made_anew(digits: Any) -> None:
    class Odd(diffusers.DDIMScheduler):  # type: ignore[misc, name-defined]
        def __deepcopy__(self, memo: Any) -> Any:
            raise TypeError("cannot be copied")

    pipe = copy.copy(digits)
    pipe.scheduler = Odd.from_config(digits.scheduler.config)
    views = RunViews(pipe)
    assert type(views().scheduler) is Odd
    assert views().scheduler is not views().scheduler
