"""Runs through a scheduler process and a worker process, against a bare grpc.aio echo of the same bytes between two processes.

python benchmarks/wire.py [--runs 3000] [--rounds 5] [--soak 200000]
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio

from gen_worker.testing.loopback import LoopbackScheduler

HERE = Path(__file__).resolve().parent
PAYLOAD = b"\x81\xa6prompt\xd9\x20" + b"x" * 32
MESSAGE = b"x" * 120  # about what a run request of that payload has on the wire
CONCURRENCY = 64


def memory_of(pid: int) -> tuple[float, int]:
    """Resident MB and threads of a process."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["VmRSS"].split()[0]) / 1024, int(lines["Threads"])


@asynccontextmanager
async def started_worker(scheduler: LoopbackScheduler, folder: Path = HERE / "endpoint") -> AsyncIterator[subprocess.Popen[bytes]]:
    env = {**os.environ, "SCHEDULER_PUBLIC_ADDR": scheduler.address, "WORKER_JWT": "bench"}
    process = subprocess.Popen([sys.executable, "-m", "gen_worker.entrypoint"], cwd=folder, env=env, stderr=subprocess.DEVNULL)
    try:
        await scheduler.worker()
        yield process
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)


@asynccontextmanager
async def published_worker(scheduler: LoopbackScheduler, python: str) -> AsyncIterator[None]:
    process = subprocess.Popen(
        [python, str(HERE / "servers" / "published_worker.py"), scheduler.address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        await scheduler.worker(60)
        yield
    finally:
        process.kill()  # it does not always listen to SIGTERM
        process.wait()


@asynccontextmanager
async def bare_echo() -> AsyncIterator[grpc.aio.StreamStreamCall]:
    process = subprocess.Popen([sys.executable, str(HERE / "servers" / "grpc_echo.py")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{int(process.stdout.readline())}") as channel:
            yield channel.stream_stream("/bench.Echo/Echo")()
    finally:
        process.terminate()
        process.wait()


async def latencies_ms(once: Callable[[], Awaitable[object]], count: int) -> float:
    """Median milliseconds of `count` calls, one after the other."""
    times = []
    for _ in range(count):
        began_s = time.perf_counter()
        await once()
        times.append(time.perf_counter() - began_s)
    return statistics.median(times) * 1000


async def bare_rate(call: grpc.aio.StreamStreamCall, count: int) -> float:
    """Messages per second there and back, 64 on their way."""
    slots = asyncio.Semaphore(CONCURRENCY)

    async def write() -> None:
        for _ in range(count):
            await slots.acquire()
            await call.write(MESSAGE)

    began_s = time.perf_counter()
    writing = asyncio.create_task(write())
    for _ in range(count):
        await call.read()
        slots.release()
    await writing
    return count / (time.perf_counter() - began_s)


async def run_rate(scheduler: LoopbackScheduler, count: int) -> float:
    """Runs per second, 64 callers."""

    async def caller() -> None:
        for _ in range(count // CONCURRENCY):
            await scheduler.call("echo", PAYLOAD)

    began_s = time.perf_counter()
    await asyncio.gather(*[caller() for _ in range(CONCURRENCY)])
    return count // CONCURRENCY * CONCURRENCY / (time.perf_counter() - began_s)


async def echo(runs: int, rounds: int) -> None:
    """Bare and through the worker in short turns, so that the machine's moods meet both; ratios are medians over the turns."""
    turns: dict[str, list[float]] = {"bare ms": [], "run ms": [], "bare rate": [], "run rate": []}
    async with LoopbackScheduler() as scheduler, started_worker(scheduler) as worker, bare_echo() as call:

        async def one_echo() -> None:
            await call.write(MESSAGE)
            await call.read()

        async def one_run() -> None:
            await scheduler.call("echo", PAYLOAD)

        await latencies_ms(one_echo, 300)
        await latencies_ms(one_run, 300)
        resident_mb, _ = memory_of(worker.pid)
        for _ in range(4 * rounds):
            turns["bare ms"].append(await latencies_ms(one_echo, 150))
            turns["run ms"].append(await latencies_ms(one_run, 150))
        for _ in range(rounds):
            turns["bare rate"].append(await bare_rate(call, runs))
            turns["run rate"].append(await run_rate(scheduler, runs))

    def row(what: str, bare: str, run: str, digits: int) -> str:
        ratio = statistics.median(ours / theirs for ours, theirs in zip(turns[run], turns[bare], strict=True))
        return f"| {what} | {statistics.median(turns[bare]):.{digits}f} | {statistics.median(turns[run]):.{digits}f} | {ratio:.2f} |"

    print("| what | bare grpc.aio echo | runs | ratio |\n|---|---|---|---|")
    print(row("p50 ms, one at a time", "bare ms", "run ms", 3))
    print(row("per second, 64 at a time", "bare rate", "run rate", 0))
    print(f"\nworker resident after its first runs: {resident_mb:.1f} MB")


async def peers(runs: int, published: str, ray: bool) -> None:
    """Others on the same work, in the same run of this program."""
    async with bare_echo() as call:

        async def one_echo() -> None:
            await call.write(MESSAGE)
            await call.read()

        await latencies_ms(one_echo, 300)
        bare_ms = await latencies_ms(one_echo, runs // 4)
        bare = await bare_rate(call, runs)
    print("\n| peer | p50 ms | ratio to bare | per second, 64 at a time | ratio to bare |\n|---|---|---|---|---|")
    if published:
        async with LoopbackScheduler() as scheduler, published_worker(scheduler, published):

            async def one_run() -> None:
                await scheduler.call("echo", PAYLOAD)

            await latencies_ms(one_run, 100)
            p50_ms, rate = await latencies_ms(one_run, runs // 8), await run_rate(scheduler, runs // 4)
            print(f"| published worker 0.3.2 | {p50_ms:.2f} | {p50_ms / bare_ms:.1f} | {rate:.0f} | {rate / bare:.3f} |")
    if ray:
        p50_ms, rate = await asyncio.to_thread(ray_actor, runs // 4)
        print(f"| Ray actor | {p50_ms:.2f} | {p50_ms / bare_ms:.1f} | {rate:.0f} | {rate / bare:.3f} |")


def ray_actor(runs: int) -> tuple[float, float]:
    """Median milliseconds of a call of a Ray actor, and calls per second with 64 on their way."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")

    @ray.remote
    class Actor:
        def echo(self, data: bytes) -> bytes:
            return data

    actor = Actor.remote()
    ray.get([actor.echo.remote(PAYLOAD) for _ in range(300)])
    times = []
    for _ in range(runs):
        began_s = time.perf_counter()
        ray.get(actor.echo.remote(PAYLOAD))
        times.append(time.perf_counter() - began_s)
    began_s = time.perf_counter()
    waiting = [actor.echo.remote(PAYLOAD) for _ in range(CONCURRENCY)]
    for _ in range(4 * runs):
        _, waiting = ray.wait(waiting, num_returns=1)
        waiting.append(actor.echo.remote(PAYLOAD))
    ray.get(waiting)
    rate = (4 * runs + CONCURRENCY) / (time.perf_counter() - began_s)
    ray.shutdown()
    return statistics.median(times) * 1000, rate


async def stream(rounds: int) -> None:
    rates, firsts = [], []
    async with LoopbackScheduler() as scheduler, started_worker(scheduler):
        for _ in range(rounds):
            count, began_s = 0, time.perf_counter()
            for _ in range(50):
                run = await scheduler.start_run("stream", PAYLOAD)
                async for _ in run.deltas():
                    count += 1
                scheduler.forget(run.run_id)
            rates.append(count / (time.perf_counter() - began_s))
            for _ in range(100):
                began_s = time.perf_counter()
                run = await scheduler.start_run("stream", PAYLOAD)
                deltas = run.deltas()
                await anext(deltas)
                firsts.append((time.perf_counter() - began_s) * 1000)
                async for _ in deltas:
                    pass
                scheduler.forget(run.run_id)
    print("\n| what | value |\n|---|---|")
    print(f"| deltas/s, streams of 200, one at a time | {statistics.median(rates):.0f} |")
    print(f"| first delta ms, p50 | {statistics.median(firsts):.3f} |")


async def start(rounds: int) -> None:
    times, idle = [], []
    async with LoopbackScheduler() as scheduler:
        for _ in range(rounds):
            began_s = time.perf_counter()
            async with started_worker(scheduler) as worker:
                times.append((time.perf_counter() - began_s) * 1000)
                await asyncio.sleep(1)
                idle.append(memory_of(worker.pid)[0])
            await scheduler.until(lambda: not scheduler.workers)
    print(f"| worker process start to registered, ms | {statistics.median(times):.0f} |")
    print(f"| idle worker resident, MB | {statistics.median(idle):.1f} |")


async def batches(runs: int) -> None:
    rates = []
    async with LoopbackScheduler() as scheduler, started_worker(scheduler):

        async def caller(count: int) -> None:
            for _ in range(count):
                await scheduler.call("batch", PAYLOAD)

        await asyncio.gather(*[caller(2) for _ in range(CONCURRENCY)])
        for _ in range(3):
            began_s = time.perf_counter()
            await asyncio.gather(*[caller(runs // CONCURRENCY) for _ in range(CONCURRENCY)])
            rates.append(runs // CONCURRENCY * CONCURRENCY / (time.perf_counter() - began_s))
    print(
        f"| batches of 16, 20 ms each, 64 callers: runs/s (ideal 800) | {statistics.median(rates):.0f} ({statistics.median(rates) / 800:.3f}) |"
    )


async def soak(runs: int) -> None:
    print("\n| runs | worker MB | worker threads |\n|---|---|---|")
    async with LoopbackScheduler() as scheduler, started_worker(scheduler) as worker:
        await run_rate(scheduler, 2000)
        print("| 2000 | {:.1f} | {} |".format(*memory_of(worker.pid)))
        for done in range(1, 5):
            await run_rate(scheduler, runs // 4)
            mb, threads = memory_of(worker.pid)
            print(f"| {2000 + runs // 4 * done} | {mb:.1f} | {threads} |")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--soak", type=int, default=0, help="runs of a soak test, such as 200000")
    parser.add_argument(
        "--published", default="", metavar="PYTHON", help="an interpreter with gen-worker==0.3.2 installed, to compare with"
    )
    parser.add_argument("--ray", action="store_true", help="compare with a Ray actor, too")
    parser.add_argument("--only", default="", help="echo, stream, start or batch")
    args = parser.parse_args()
    if args.only in ("", "echo"):
        await echo(args.runs, args.rounds)
    if args.only in ("", "stream"):
        await stream(args.rounds)
    if args.only in ("", "start"):
        await start(args.rounds)
    if args.only in ("", "batch"):
        await batches(args.runs)
    if args.published or args.ray:
        await peers(args.runs, args.published, args.ray)
    if args.soak:
        await soak(args.soak)


if __name__ == "__main__":
    asyncio.run(main())
