"""Which files a run's output names."""

import msgspec
import pytest

from gen_orchestrator.api.run_object import files_of
from gen_orchestrator.domain.runs import Run

ASSET = {"ref": "runs/r1/outputs/a.png", "mime_type": "image/png", "size_bytes": 4}


@pytest.mark.parametrize(
    ("output", "refs"),
    [
        ({"file": ASSET}, ["runs/r1/outputs/a.png"]),
        ({"result": "runs/r1/outputs/a.png"}, ["runs/r1/outputs/a.png"]),
        ({"results": ["runs/r1/b.bin", {"deep": "runs/r1/outputs/a.png"}]}, ["runs/r1/b.bin", "runs/r1/outputs/a.png"]),
        ({"file": ASSET, "result": "runs/r1/outputs/a.png"}, ["runs/r1/outputs/a.png"]),
        ({"text": "see runs/r1/outputs/a.png"}, []),
        ({"text": "runs/r1/outputs/../../r2/secret"}, []),
        ({"text": "runs/r1/\nthe end"}, []),
        ({"text": "runs/r1/"}, []),
        ({"text": "runs/r2/outputs/a.png"}, []),
        ({"runs/r1/outputs/a.png": 1}, []),
        ({"text": ""}, []),
    ],
)
def test_files_that_an_output_names(output: object, refs: list[str]) -> None:
    named = {"id": "r1", "owner": "ann", "endpoint": "e", "function": "f", "tag": "prod", "release_id": "rel"}
    run = Run(**named, payload=b"", created_at=0.0, output=msgspec.msgpack.encode(output))
    assert [file["ref"] for file in files_of(run)] == refs
