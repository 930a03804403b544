"""A build whose end cannot be stored because the disk is full leaves no files that keep the disk full."""

import asyncio
import io
import tarfile
import time
from pathlib import Path

from gen_orchestrator.hub.builders import BuildFailedError, Built, Order
from gen_orchestrator.hub.builds import ARCHIVE, Build, Builds
from gen_orchestrator.hub.environments import Say
from gen_orchestrator.hub.making import Making
from gen_orchestrator.hub.registry import Registry
from gen_orchestrator.store.memory import MemoryStore
from gen_worker.log import Log


class InTheWay:
    """Fails, and puts a folder where the build's state is written to: that fails then as it does without room."""

    async def build(self, order: Order, say: Say) -> Built:
        (order.source.parent / "build.new").mkdir()
        raise BuildFailedError("there is no room")


async def failed_build(folder: Path) -> tuple[Build, Path]:
    said = io.StringIO()
    builds = Builds(folder, {"process": InTheWay()}, Registry(MemoryStore(time.time)), time.time, Log(said), lambda: None, Making())
    await builds.start()
    try:
        build, archive = builds.reserve("ann", "")
        with tarfile.open(archive, "w:gz") as tar:
            info = tarfile.TarInfo("main.py")
            info.size = 5
            tar.addfile(info, io.BytesIO(b"x = 1"))
        await builds.submit(build)
        async with asyncio.timeout(60):
            while "build.not_recorded" not in said.getvalue():
                await asyncio.sleep(0.005)  # waits: for the line in the log, within the limit above
    finally:
        await builds.stop()
    return build, archive


def test_a_build_that_cannot_be_recorded_gives_its_room_back(tmp_path: Path) -> None:
    build, archive = asyncio.run(failed_build(tmp_path))
    assert (build.status, build.error) == ("failed", "there is no room")
    assert archive.name == ARCHIVE
    assert sorted(path.name for path in archive.parent.iterdir()) == ["build.json", "build.new", "log"], (
        "neither the archive nor the source"
    )
