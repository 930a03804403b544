"""What workers of a release learn about its models."""

import msgspec

from gen_orchestrator.hub.release_config import release_config
from gen_worker.contract.manifest import Manifest
from gen_worker.wire.messages import ModelRefSpec

ENTRY = {"python_name": "f", "module": "m"}


def manifest(**fields: object) -> Manifest:
    return msgspec.convert({"endpoint_name": "e", **fields}, Manifest)


def test_what_every_run_needs_is_fetched_ahead_and_what_callers_choose_is_not() -> None:
    found = release_config(
        manifest(
            functions=[{**ENTRY, "name": "paint", "required_models": ["own"]}, {**ENTRY, "name": "echo"}],
            models_by_function={"paint": {"own": {"ref": "hf:demo/own", "dtypes": ["fp16"]}, "small": "hf:demo/small"}},
        )
    )
    assert found is not None
    assert len(found.supported_refs) == 2
    assert [ref for ref in found.required_refs if "demo/own" in ref] == list(found.required_refs) != []
    assert list(found.models_by_function) == ["paint"]
    assert found.models_by_function["paint"].models["own"] == ModelRefSpec("hf:demo/own", ("fp16",))


def test_a_release_without_models_needs_none() -> None:
    assert release_config(manifest(functions=[{**ENTRY, "name": "echo"}])) is None
