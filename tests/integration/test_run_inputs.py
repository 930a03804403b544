"""Input files belong to one execution, not to a run id."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpcore
import pytest
from tests.run_bench import Out, WithFile, action, bench
from tests.waiting import eventually

from gen_worker import ActionContext
from gen_worker.net.guard import GuardedDownloader

ENTERED, GO_ON = threading.Event(), threading.Event()
SEEN: list[str] = []


def deaf(ctx: ActionContext, payload: WithFile) -> Out:
    """Goes on after its run was cancelled, and reads its input only then."""
    ENTERED.set()
    GO_ON.wait(60)
    SEEN.append(payload.image.read_bytes().decode())
    return Out("late")


def read(ctx: ActionContext, payload: WithFile) -> Out:
    return Out(payload.image.read_bytes().decode() + " " + str(payload.image.local_path))


def uri(text: str) -> dict[str, object]:
    return {"image": {"ref": f"data:text/plain,{text}"}}


def test_the_same_id_again_while_the_code_of_the_first_run_still_reads(tmp_path: Path) -> None:
    async def main() -> None:
        ENTERED.clear()
        GO_ON.clear()
        SEEN.clear()
        async with bench(tmp_path) as made:
            first = made.start(action(deaf), uri("first"), "same")
            await asyncio.to_thread(ENTERED.wait, 10)
            first.token.cancel()
            await first.end.wait()
            assert (first.outcome.error_type, first.releases) == ("canceled", 0)
            for number in range(3):  # while the first one's folder is still there
                again = await made.run(action(read), uri(f"again{number}"), "same")
                assert again.outcome.output.startswith(b'{"text":"again%d ' % number)
                assert made.left_files() == ["same"]
            GO_ON.set()
            await asyncio.wait_for(first.release.wait(), 60)
            assert SEEN == ["first"]
            assert made.left_files() == []

    asyncio.run(main())


@pytest.mark.parametrize("run_id", ["", ".", "..", "../x", "/etc", "a/..", "a\x00b", "ü", "x" * 129])
def test_an_id_that_could_lead_out_of_the_folder_is_refused(tmp_path: Path, run_id: str) -> None:
    async def main() -> None:
        async with bench(tmp_path) as made:
            made.run_dir.mkdir()
            ended = await made.run(action(read), uri("x"), run_id)
            assert not ended.outcome.success
            assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]

    asyncio.run(main())


def test_what_lies_there_under_the_name_of_a_run_stays(tmp_path: Path) -> None:
    async def main() -> None:
        async with bench(tmp_path) as made:
            (made.run_dir / "input-cache").mkdir(parents=True)
            (made.run_dir / "input-cache" / "kept").write_text("x")
            (made.run_dir / "link").symlink_to(tmp_path)
            for run_id in ("input-cache", "link"):
                assert (await made.run(action(read), uri("x"), run_id)).outcome.success
            assert made.left_files() == ["input-cache", "link"]
            assert (made.run_dir / "input-cache" / "kept").exists()

    asyncio.run(main())


@contextmanager
def stalling_server(asked: threading.Event, go_on: threading.Event) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.set()
            go_on.wait(60)
            self.send_response(200)
            self.send_header("content-length", "5")
            self.end_headers()
            self.wfile.write(b"later")

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/file.bin"
    finally:
        go_on.set()
        server.shutdown()
        server.server_close()


def test_a_run_that_is_cancelled_while_a_file_is_fetched_ends_at_once_and_leaves_none(tmp_path: Path) -> None:
    async def main() -> None:
        asked, go_on = threading.Event(), threading.Event()
        with stalling_server(asked, go_on) as url:
            downloader = GuardedDownloader(httpcore.SyncBackend(), ports=[int(url.split(":")[2].split("/")[0])])
            async with bench(tmp_path, downloader=downloader) as made:
                run = made.start(action(read), {"image": {"ref": url}}, "r")
                await asyncio.to_thread(asked.wait, 10)
                run.token.cancel()
                await asyncio.wait_for(run.release.wait(), 1)
                assert run.outcome.error_type == "canceled"
                go_on.set()
                async with asyncio.timeout(60):
                    await eventually(lambda: not made.left_files())

    asyncio.run(main())
