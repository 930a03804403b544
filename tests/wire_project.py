"""The project that the wire tests serve."""

CODE = """
import dataclasses
import threading
from typing import TypedDict
from gen_worker.errors import *

class In(msgspec.Struct):
    prompt: str = ""
    seconds: float = 0.0
    count: int = 0
    size: int = 0

class Out(msgspec.Struct):
    text: str

class Picture(msgspec.Struct):
    image: Asset

@worker_function()
def echo(ctx: ActionContext, payload: In) -> Out:
    return Out(payload.prompt)

@worker_function()
async def aecho(ctx: ActionContext, payload: In) -> Out:
    return Out(payload.prompt)

@worker_function()
def slow(ctx: ActionContext, payload: In) -> Out:
    ctx.done().wait(payload.seconds)
    return Out("done")

@worker_function()
def deaf(ctx: ActionContext, payload: In) -> Out:
    time.sleep(payload.seconds)
    return Out("done")

@worker_function(ResourceRequirements(max_concurrency=1))
def single(ctx: ActionContext, payload: In) -> Out:
    ctx.done().wait(payload.seconds)
    return Out("done")

@worker_function()
def stream(ctx: ActionContext, payload: In) -> Iterator[Out]:
    for n in range(payload.count):
        yield Out(str(n))
        if payload.seconds:
            ctx.done().wait(payload.seconds)

@worker_function()
def fail(ctx: ActionContext, payload: In) -> Out:
    raise {"validation": ValidationError, "retryable": RetryableError, "fatal": FatalError, "value": ValueError, "exit": SystemExit,
           "bug": ZeroDivisionError}[payload.prompt]("because of Bearer abc123 at /etc/passwd")

@worker_function()
def fail_stream(ctx: ActionContext, payload: In) -> Iterator[Out]:
    yield Out("first")
    raise FatalError("broken")

@worker_function()
def large(ctx: ActionContext, payload: In) -> Out:
    return Out("x" * payload.size)

@worker_function()
def chatty(ctx: ActionContext, payload: In) -> Out:
    for n in range(payload.count):
        ctx.emit("custom.tick", {"n": n})
    return Out("done")

@worker_function()
def who(ctx: ActionContext, payload: In) -> Out:
    return Out(f"{ctx.run_id} {ctx.owner} {ctx.invoker_id} {ctx.timeout_ms} {ctx.required_models}")

@worker_function()
def save(ctx: ActionContext, payload: In) -> Out:
    asset = ctx.save_bytes(f"runs/{ctx.run_id}/outputs/a b.bin", b"x" * payload.size)
    return Out(f"{asset.ref} {asset.size_bytes} {asset.sha256}")

@worker_function()
def save_new(ctx: ActionContext, payload: In) -> Out:
    return Out(ctx.save_bytes_create(payload.prompt, b"data").ref)

@worker_function()
def save_large(ctx: ActionContext, payload: In) -> Out:
    import resource, tempfile
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large"
        with path.open("wb") as file:
            file.truncate(payload.size)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        asset = ctx.save_file("large.bin", path)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return Out(f"{asset.size_bytes} {grown}")

@worker_function()
def look(ctx: ActionContext, payload: Picture) -> Out:
    image = payload.image
    return Out(f"{image.read_bytes()[:8].hex()} {image.size_bytes} {image.sha256} {image.mime_type} {image.owner} {image.local_path}")

@dataclasses.dataclass
class Page:
    image: Asset

class Book(msgspec.Struct):
    pages: tuple[Page, ...] = ()
    row: TypedDict("Row", {"image": Asset}) | None = None

@worker_function()
def look_in_book(ctx: ActionContext, payload: Book) -> Out:
    images = [page.image for page in payload.pages] + ([payload.row["image"]] if payload.row else [])
    return Out(" ".join(image.read_bytes().decode() for image in images))

@worker_function()
def spoil(ctx: ActionContext, payload: Picture) -> Out:
    before = payload.image.read_bytes()
    Path(payload.image.local_path).write_bytes(b"spoiled")
    return Out(before.decode())

@worker_function(batch=Batch(max_size=4, max_wait_ms=50))
def batch(ctx: ActionContext, payloads: list[In]) -> list[Out]:
    if any(p.prompt == "bad" for p in payloads):
        raise ValueError("one of them is bad")
    for item, payload in zip(ctx.items, payloads):
        item.progress(0.5, stage=payload.prompt)
    ctx.done().wait(max(p.seconds for p in payloads))
    return [ValidationError("this one") if p.prompt == "refused" else Out(f"{p.prompt} of {len(payloads)}") for p in payloads]

@worker_function(batch=Batch(max_size=4, max_wait_ms=50))
async def abatch(ctx: ActionContext, payloads: list[In]) -> list[Out]:
    await asyncio.sleep(max(p.seconds for p in payloads))
    return [Out(f"{p.prompt} of {len(payloads)}") for p in payloads]

@worker_function(batch=Batch(max_size=4, max_wait_ms=20))
def short(ctx: ActionContext, payloads: list[In]) -> list[Out]:
    return []

@worker_websocket()
async def mirror(ctx: ActionContext, sock: RealtimeSocket) -> None:
    async for data in sock.iter_bytes():
        if data == b"close":
            await sock.close()
            return
        if data == b"fail":
            raise ValueError("as asked")
        if data == b"json":
            await sock.send_json({"b": 1, "a": ctx.run_id})
        else:
            await sock.send_bytes(data)

@worker_websocket()
async def flood(ctx: ActionContext, sock: RealtimeSocket) -> None:
    async for data in sock.iter_bytes():
        for n in range(int(data)):
            await sock.send_bytes(str(n).encode())
        return

@worker_websocket()
async def sleepy(ctx: ActionContext, sock: RealtimeSocket) -> None:
    await asyncio.sleep(0.5)
    total = 0
    async for data in sock.iter_bytes():
        assert int(data) == total
        total += 1
        if total % 100 == 0:
            await asyncio.sleep(0.01)
    await sock.send_bytes(b"ignored")

@worker_websocket()
async def at_work(ctx: ActionContext, sock: RealtimeSocket) -> None:
    async for data in sock.iter_bytes():
        await asyncio.sleep(float(data))
        await sock.send_bytes(data)

@worker_websocket()
async def bulky(ctx: ActionContext, sock: RealtimeSocket) -> None:
    async for data in sock.iter_bytes():
        await sock.send_bytes(bytes(int(data)))

@worker_websocket()
async def stubborn(ctx: ActionContext, sock: RealtimeSocket) -> None:
    await asyncio.sleep(3600)
"""
