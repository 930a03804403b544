"""The project that the tests' platforms serve: one function for each thing that a run can do."""

COZY_TOML = """\
schema_version = 1
name = "probe"
main = "probe.main"
gen_worker = ">=0.2.0,<0.3.0"

[functions.brief]
timeout_s = 1

[functions.tokens]
durable = false

[functions.remembered]
memo = "1h"

[functions.forgotten]
memo = "1s"

[functions.one_at_a_time]
max_concurrency = 1
"""
MAIN = """\
import json, os, subprocess, sys, time
from collections.abc import Iterator
from pathlib import Path
import msgspec
from gen_worker import ActionContext, Asset, RetryableError, worker_function

class Input(msgspec.Struct):
    text: str = ""
    seconds: float = 0.0
    times: int = 0
    folder: str = ""

class Output(msgspec.Struct):
    text: str
    pid: int = 0

class Delta(msgspec.Struct):
    number: int

class Word(msgspec.Struct):
    text: str

class Saved(msgspec.Struct):
    file: Asset

class Files(msgspec.Struct):
    image: Asset
    more: list[Asset] = []
    raw: bytes = b""
    words: list[str] = []
    factor: float = 1.0
    title: str = ""

class Read(msgspec.Struct):
    texts: list[str]
    raw: str
    words: list[str]
    factor: float
    title: str

VERSION = 1

@worker_function()
def echo(ctx: ActionContext, payload: Input) -> Output:
    return Output(text=payload.text, pid=os.getpid())

@worker_function()
def trace(ctx: ActionContext, payload: Input) -> Output:
    return Output(text=ctx.traceparent or "")

@worker_function()
def version(ctx: ActionContext, payload: Input) -> Output:
    return Output(text=str(VERSION))

@worker_function()
def sleep(ctx: ActionContext, payload: Input) -> Output:
    note(payload, f"{ctx.run_id} began")
    end = time.monotonic() + payload.seconds
    while time.monotonic() < end and not (payload.folder and (Path(payload.folder) / "go").exists()):
        if ctx.is_canceled():
            raise InterruptedError("canceled")
        time.sleep(0.005)
    return Output(text=payload.text, pid=os.getpid())

@worker_function()
def remembered(ctx: ActionContext, payload: Input) -> Output:
    tries = note(payload, "called")
    if payload.text == "fails" and len(tries) == 1:
        raise ValueError("the first time")
    pause(payload)
    return Output(text=str(len(tries)))

@worker_function()
def forgotten(ctx: ActionContext, payload: Input) -> Output:
    return remembered(ctx, payload)

@worker_function()
def one_at_a_time(ctx: ActionContext, payload: Input) -> Output:
    return sleep(ctx, payload)

@worker_function()
def brief(ctx: ActionContext, payload: Input) -> Output:
    time.sleep(payload.seconds)
    return Output(text="late")

@worker_function()
def count(ctx: ActionContext, payload: Input) -> Iterator[Delta]:
    for number in range(payload.times):
        if payload.seconds:
            pause(payload)
        yield Delta(number)

@worker_function()
def words(ctx: ActionContext, payload: Input) -> Iterator[Word]:
    found = payload.text.split(" ") * (payload.times or 1)
    for number, word in enumerate(found, 1):
        ctx.progress(number / len(found))
        yield Word(word)
        pause(payload)

@worker_function()
def tokens(ctx: ActionContext, payload: Input) -> Iterator[Delta]:
    if payload.folder and len(note(payload, "try")) < 2:
        raise RetryableError("not yet")
    yield from count(ctx, payload)

@worker_function()
def progress(ctx: ActionContext, payload: Input) -> Output:
    for number in range(payload.times):
        ctx.progress(number / payload.times, stage="work")
    ctx.log("nearly there")
    return Output(text="done")

@worker_function()
def later(ctx: ActionContext, payload: Input) -> Output:
    if len(note(payload, "try")) < payload.times:
        raise RetryableError("not yet")
    return Output(text="at last")

@worker_function()
def crash(ctx: ActionContext, payload: Input) -> Output:
    note(payload, "crash")
    os._exit(7)

@worker_function()
def environment(ctx: ActionContext, payload: Input) -> Output:
    return Output(text=json.dumps(dict(os.environ)))

@worker_function()
def deaf(ctx: ActionContext, payload: Input) -> Output:
    child = subprocess.Popen(["sleep", "1000"])
    note(payload, str(child.pid))
    time.sleep(payload.seconds)
    return Output(text="it went on")

@worker_function()
def litter(ctx: ActionContext, payload: Input) -> Output:
    # Leaves a child, one in a session of its own, and a daemon whose parent is gone.
    own = "import os, time; print(os.getpid(), flush=True); time.sleep(1000)"
    daemon = "import os, time\\nif os.fork(): os._exit(0)\\nos.setsid()\\nprint(os.getpid(), flush=True)\\ntime.sleep(1000)"
    for code, apart in ((own, False), (own, True), (daemon, False)):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=apart)
        note(payload, child.stdout.readline().decode().strip())
    time.sleep(payload.seconds)
    return Output(text="done")

@worker_function()
def chatter(ctx: ActionContext, payload: Input) -> Output:
    for number in range(payload.times):
        print(f"chatter {number:06d}", flush=True)
    return Output(text="said")

@worker_function()
def broken(ctx: ActionContext, payload: Input) -> Output:
    raise RuntimeError("the device is in a bad state")

@worker_function()
def refuse(ctx: ActionContext, payload: Input) -> Output:
    raise ValueError("text is empty")

@worker_function()
def save(ctx: ActionContext, payload: Input) -> Saved:
    return Saved(file=ctx.save_bytes(f"runs/{ctx.run_id}/outputs/note.txt", payload.text.encode()))

@worker_function()
def save_late(ctx: ActionContext, payload: Input) -> Saved:
    note(payload, "began")
    while not (Path(payload.folder) / "go").exists():
        time.sleep(0.005)
    return Saved(file=ctx.save_bytes(f"runs/{ctx.run_id}/outputs/note.txt", payload.text.encode()))

@worker_function()
def save_and_name(ctx: ActionContext, payload: Input) -> Output:
    return Output(text=ctx.save_bytes(f"runs/{ctx.run_id}/outputs/note.txt", payload.text.encode()).ref)

@worker_function()
def save_as(ctx: ActionContext, payload: Input) -> Saved:
    saved = Saved(file=ctx.save_bytes(payload.text, ctx.run_id.encode()))
    if payload.folder: sleep(ctx, payload)
    else: pause(payload)
    return saved

@worker_function()
def read(ctx: ActionContext, payload: Files) -> Read:
    texts = [Path(asset.local_path).read_text() for asset in (payload.image, *payload.more)]
    return Read(texts, payload.raw.decode(), payload.words, payload.factor, payload.title)

@worker_function()
def picture(ctx: ActionContext, payload: Input) -> Saved:
    return Saved(file=ctx.save_bytes(f"runs/{ctx.run_id}/outputs/dot.png", b"\\x89PNG" + bytes(96)))

def pause(payload: Input) -> None:
    if not 0 <= payload.seconds <= 3600: raise ValueError("seconds: expected 0 to 3600")
    time.sleep(payload.seconds)

def note(payload: Input, line: str) -> list[str]:
    if not payload.folder: return []
    if not os.path.isdir(payload.folder): raise ValueError("folder: expected one that exists")
    path = Path(payload.folder) / "notes"
    with path.open("a") as file:
        file.write(line + "\\n")
    return path.read_text().splitlines()
"""
