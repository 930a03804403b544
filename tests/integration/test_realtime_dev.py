"""`cozyctl dev` with websockets: a line for each session; open sessions continue with their old code after a change."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import websockets
from tests.realtime_project import CODE, COZY
from tests.waiting import eventually


async def test_lines_and_a_change_of_code(project: Callable[..., Path], tmp_path: Path) -> None:
    folder = project(CODE, COZY)
    main = next(folder.rglob("main.py"))
    log = tmp_path / "log"
    command = [sys.executable, "-c", "from gen_worker.cli.main import main; main()", "dev", "--listen", "127.0.0.1:0", "--outputs", "o"]
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=folder, stderr=file)
    try:
        await eventually(lambda: "/docs" in log.read_text())
        url = re.search(r"http://\S+", log.read_text())[0]
        where = f"{url.replace('http', 'ws', 1)}/v1/realtime"
        async with websockets.connect(f"{where}/once?run_id=before", proxy=None) as before:
            text = main.read_text()
            main.write_text(text.replace("await sock.send_bytes(data)\n        return", 'await sock.send_bytes(b"new")\n        return'))
            await eventually(lambda: "reload.done" in log.read_text())
            async with websockets.connect(f"{where}/once", proxy=None) as after:
                await after.send("x")
                assert await after.recv() == b"new"
            await before.send("x")
            assert await before.recv() == b"x"
        async with websockets.connect(f"{where}/mirror?run_id=broken", proxy=None) as broken:
            await broken.send("fail")
            await broken.wait_closed()
        async with (
            websockets.connect(f"{where}/pair", proxy=None),
            websockets.connect(f"{where}/pair", proxy=None),
            websockets.connect(f"{where}/pair", proxy=None) as third,
        ):
            await third.wait_closed()
        assert httpx.get(f"{url}/v1/realtime/mirro", trust_env=False).status_code == 404
        await eventually(lambda: log.read_text().count("session.ended") == 5)
    finally:
        process.terminate()
        assert process.wait(60) == 0
    said = [re.sub(r"\s+", " ", line.partition(" ")[2]) for line in log.read_text().splitlines()]
    ended = [re.sub(r"ms=\d+ ", "", line) for line in said if "session.ended" in line]
    assert "info session.ended function=once reason=completed frames_in=1 frames_out=1 run_id=before" in ended
    assert (
        "warning session.ended function=mirror reason=error:ValueError frames_in=1 frames_out=0 run_id=broken error=validation: as asked"
        in ended
    )
    assert "warning session.refused function=pair reason=function_concurrency_reached" in said
    assert [line for line in said if "no websocket 'mirro'. Did you mean 'mirror'?" in line]
