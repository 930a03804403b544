"""A project whose functions misbehave."""

CODE = """
import contextvars
import decimal
import multiprocessing
import subprocess
import threading
import time
from gen_worker.errors import *

SURROGATE = "bad \\udcff name"
USER = contextvars.ContextVar("user", default="nobody")

class In(msgspec.Struct):
    kind: str = ""
    steps: float = 1.0
    width: float = 1.0
    count: int = 0

class Out(msgspec.Struct):
    text: str = ""
    value: float | None = None

class MuteError(Exception):
    def __str__(self):
        raise RuntimeError("no text")
    __repr__ = __str__

class NotedError(Exception):
    pass

def raise_mute():
    raise MuteError

@worker_function()
def echo(ctx: ActionContext, payload: In) -> Out:
    return Out(payload.kind)

@worker_function()
async def aecho(ctx: ActionContext, payload: In) -> Out:
    return Out(payload.kind)

@worker_function()
def fail(ctx: ActionContext, payload: In) -> Out:
    kind = payload.kind
    if kind == "mute":
        raise_mute()
    if kind == "cause":
        raise RuntimeError("x") from MuteError()
    if kind == "context":
        try:
            raise_mute()
        except MuteError:
            raise KeyError(SURROGATE)
    if kind == "group":
        raise ExceptionGroup("several", [MuteError(), ValueError(SURROGATE)])
    if kind == "note":
        error = NotedError("noted")
        error.__notes__ = [MuteError(), SURROGATE]
        raise error
    if kind == "surrogate":
        raise RuntimeError(SURROGATE)
    if kind == "value":
        raise ValueError(SURROGATE)
    if kind == "fields":
        raise ValidationError("x", errors=(FieldError("/k", SURROGATE), {"pointer": "/b", "message": object()}))
    if kind == "fields of another kind":
        raise ValidationError("x", errors=7)
    if kind == "exit":
        raise SystemExit(3)
    if kind == "interrupt":
        raise KeyboardInterrupt
    if kind == "cancelled":
        raise asyncio.CancelledError
    if kind == "stop":
        raise StopIteration(5)
    if kind == "recursion":
        return fail(ctx, payload)
    if kind == "long":
        raise RuntimeError("x" * 5_000_000)

@worker_function()
def measured(ctx: ActionContext, payload: In) -> Out:
    if payload.kind == "steps":
        payload.steps = 10**400
    if payload.kind == "upload nan":
        ctx.upload_s = float("nan")
    if payload.kind == "upload text":
        ctx.upload_s = "long"
    return Out(payload.kind)

@worker_function()
def give(ctx: ActionContext, payload: In) -> Out:
    return {"nan": Out(value=float("nan")), "type": Out(text=5), "none": None}[payload.kind]

@worker_function()
def stream(ctx: ActionContext, payload: In) -> Iterator[Out]:
    yield Out("first")
    if payload.kind == "nan":
        yield Out(value=float("inf"))
    if payload.kind == "returns":
        return Out("last")

@worker_function()
def late(ctx: ActionContext, payload: In) -> Out:
    def emit():
        for n in range(payload.count):
            ctx.emit("custom.late", {"n": n, "data": "x" * 100_000})
            ctx.progress(0.5)
            if n == 0:
                time.sleep(0.3)
        Path(f"late-{ctx.run_id}").touch()
    threading.Thread(target=emit, daemon=True).start()
    return Out("ok")

@worker_function()
def flood(ctx: ActionContext, payload: In) -> Out:
    for n in range(payload.count):
        ctx.emit("custom.flood", {"n": n, "data": "x" * 100_000})
    return Out("ok")

@worker_function()
def reserved(ctx: ActionContext, payload: In) -> Out:
    for name in ("task.completed", "task.failed", "output.delta", "output.completed"):
        ctx.emit(name, {"forged": True})
    ctx.emit("metrics.tokens", {"output_tokens": 3})
    return Out("ok")

@worker_function()
def context(ctx: ActionContext, payload: In) -> Out:
    before = f"{USER.get()} {decimal.getcontext().prec}"
    USER.set("somebody")
    decimal.getcontext().prec = 5
    return Out(before)

@worker_function()
async def acontext(ctx: ActionContext, payload: In) -> Out:
    before = f"{USER.get()} {decimal.getcontext().prec}"
    USER.set("somebody")
    decimal.getcontext().prec = 5
    return Out(before)

@worker_function()
async def loops(ctx: ActionContext, payload: In) -> Out:
    loop = asyncio.get_running_loop()
    kind = payload.kind
    if kind == "stop":
        loop.stop()
    if kind == "close":
        loop.is_running = lambda: False
        loop.close()
        await asyncio.sleep(60)
    if kind == "factory":
        def broken(loop, work, **options):
            work.close()
            raise RuntimeError("no task from me")
        loop.set_task_factory(broken)
    if kind == "factory again":
        loop.set_task_factory(None)
    if kind == "cancel itself":
        asyncio.current_task().cancel()
        await asyncio.sleep(60)
    if kind == "cancel all":
        for task in asyncio.all_tasks():
            task.cancel()
        await asyncio.sleep(60)
    if kind == "exit in a task":
        async def leave():
            raise SystemExit(3)
        asyncio.create_task(leave())
        await asyncio.sleep(0.05)
    if kind == "block":
        time.sleep(payload.steps)
    return Out(kind)

def square(n):
    return n * n

@worker_function()
def forks(ctx: ActionContext, payload: In) -> Out:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return Out(str(pool.map(square, [1, 2, 3])))

def status_of(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def child_by(kind):
    if kind == "preexec_fn":
        return subprocess.run(["true"], preexec_fn=os.setsid).returncode
    if kind in ("fork", "forkserver", "spawn"):
        with multiprocessing.get_context(kind).Pool(2) as pool:
            return pool.map(square, [1, 2, 3])
    pid = os.fork()
    if pid:
        return status_of(pid)
    if kind == "os.fork":
        os._exit(7)
    if kind == "exit":
        sys.exit(7)
    if kind == "raises":
        raise ValueError("in the child")
    return None

@worker_function()
def children(ctx: ActionContext, payload: In) -> Out:
    found = [child_by(payload.kind) for _ in range(payload.count)]
    return Out(str(sorted({str(one) for one in found})))

@worker_function()
async def achildren(ctx: ActionContext, payload: In) -> Out:
    return Out(str(child_by(payload.kind)))

@worker_function()
def child_in_a_stream(ctx: ActionContext, payload: In) -> Iterator[Out]:
    pid = os.fork()
    if pid == 0:
        yield Out("the child's")
        return
    yield Out(str(status_of(pid)))
"""
