"""The bare bones of a durable run: HTTP in, written, to a worker by our wire, its result written, answered. No checks, no states, no events, one
function, one worker. What `cozyctl up` does beyond that is measured against it. argv: port.

One loop serves uvicorn and the worker's stream; one thread commits what has gathered to SQLite in WAL mode with synchronous=FULL.
"""

import asyncio
import os
import queue
import sqlite3
import subprocess
import sys
import tempfile
import threading
import uuid
from pathlib import Path
from typing import Any

import msgspec
import uvicorn

from gen_worker.transport.grpc_server import GrpcServer, ServerStream
from gen_worker.transport.worker_stream import WorkerStream
from gen_worker.wire.holds import Hold
from gen_worker.wire.messages import RunCommand, RunResult
from gen_worker.wire.scheduler_session import Registered, RunEnded, SchedulerEffect

ENDPOINT = Path(__file__).resolve().parents[1] / "endpoint"
INSERT, UPDATE = "insert into runs(id, payload) values (?, ?)", "update runs set output = ? where id = ?"


class Writer(threading.Thread):
    """Commits in the order of `put`, as many at once as wait."""

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(daemon=True)
        self._path, self._loop = path, loop
        self._waiting: queue.SimpleQueue[tuple[str, tuple[Any, ...], asyncio.Future[None]]] = queue.SimpleQueue()

    def put(self, statement: str, values: tuple[Any, ...]) -> "asyncio.Future[None]":
        written = self._loop.create_future()
        self._waiting.put((statement, values, written))
        return written

    def run(self) -> None:
        database = sqlite3.connect(self._path, isolation_level=None)
        database.execute("pragma journal_mode = wal")
        database.execute("pragma synchronous = full")
        database.execute("create table runs(id text primary key, payload blob, output blob) without rowid")
        while True:
            batch = [self._waiting.get()]
            while not self._waiting.empty():
                batch.append(self._waiting.get())
            database.execute("begin")
            for statement, values, _ in batch:
                database.execute(statement, values)
            database.execute("commit")
            self._loop.call_soon_threadsafe(_all_written, [written for _, _, written in batch])


def _all_written(futures: list["asyncio.Future[None]"]) -> None:
    for future in futures:
        future.set_result(None)


class Bare:
    def __init__(self, folder: Path) -> None:
        self._writer = Writer(folder / "runs.sqlite", asyncio.get_running_loop())
        self._writer.start()
        self._worker: WorkerStream | None = None
        self._results: dict[str, asyncio.Future[RunResult]] = {}
        self.ready = asyncio.Event()

    async def serve(self, stream: ServerStream) -> None:
        worker = WorkerStream(stream, {}, few_events=True)
        await worker.run(self._take)

    def _take(self, worker: WorkerStream, effect: SchedulerEffect, hold: Hold) -> None:
        if isinstance(effect, RunEnded):
            self._results.pop(effect.result.run_id).set_result(effect.result)
        elif isinstance(effect, Registered):
            self._worker = worker
            self.ready.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        run_id = uuid.uuid4().hex
        payload = msgspec.msgpack.encode(msgspec.json.decode(body))
        await self._writer.put(INSERT, (run_id, payload))
        result: asyncio.Future[RunResult] = asyncio.get_running_loop().create_future()
        self._results[run_id] = result
        assert self._worker is not None
        self._worker.start(RunCommand(run_id=run_id, function="echo", payload=payload, attempt=1))
        output = (await result).output
        await self._writer.put(UPDATE, (output, run_id))
        answer = msgspec.json.encode({"id": run_id, "status": "succeeded", "output": msgspec.msgpack.decode(output)})
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


async def main(port: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bare = Bare(Path(folder))
        wire = GrpcServer(bare.serve, "127.0.0.1:0")
        await wire.start()
        env = {**os.environ, "SCHEDULER_PUBLIC_ADDR": f"127.0.0.1:{wire.port}", "WORKER_JWT": "bench"}
        worker = subprocess.Popen([sys.executable, "-m", "gen_worker.entrypoint"], cwd=ENDPOINT, env=env, stderr=subprocess.DEVNULL)
        try:
            await bare.ready.wait()
            await uvicorn.Server(uvicorn.Config(bare, port=port, lifespan="off", log_level="error", access_log=False)).serve()
        finally:
            worker.terminate()
            worker.wait()
            await wire.stop(0)


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(int(sys.argv[1])))
