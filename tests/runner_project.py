"""The project that the dev runner's tests serve."""

CODE = """
class In(msgspec.Struct):
    prompt: str = ""
    n: int = 3
    seconds: float = 0
    image: Asset | None = None
    images: list[Asset] = []

class Out(msgspec.Struct):
    text: str

class Word(msgspec.Struct):
    chunk: str

@worker_function()
def echo(ctx: ActionContext, payload: In) -> Out:
    "Give the prompt back.\\n\\nAs it came."
    return Out(payload.prompt)

@worker_function
async def aecho(ctx: ActionContext, payload: In) -> Out:
    await asyncio.sleep(payload.seconds)
    return Out(payload.prompt)

@worker_function()
def words(ctx: ActionContext, payload: In) -> Iterable[Word]:
    for number, word in enumerate(payload.prompt.split()):
        ctx.progress(number / 10, stage="say")
        yield Word(word)

@worker_function()
async def awords(ctx: ActionContext, payload: In) -> AsyncIterator[Word]:
    for number in range(payload.n):
        yield Word(str(number))
        await asyncio.sleep(payload.seconds)

@worker_function()
def tell(ctx: ActionContext, payload: In) -> Out:
    ctx.log("a line", level="warning")
    ctx.emit("my.event", {"x": 1})
    ctx.emit("my.broken", {"x": object()})
    return Out(f"{ctx.run_id} {ctx.owner} {ctx.invoker_id} {ctx.timeout_ms} {ctx.required_models} {(ctx.time_remaining_s() or 0) > 1}")

@worker_function()
def save(ctx: ActionContext, payload: In) -> Out:
    asset = ctx.save_bytes(f"runs/{ctx.run_id}/outputs/a b.png", b"\\x89PNG\\r\\n\\x1a\\n" + payload.prompt.encode())
    return Out(asset.ref)

@worker_function()
def look(ctx: ActionContext, payload: In) -> Out:
    found = [payload.image] if payload.image else payload.images
    return Out(" ".join(f"{a.mime_type} {a.size_bytes} {a.sha256[:8]} {a.read_bytes()[-4:].decode('latin-1')}" for a in found))

@worker_function(ResourceRequirements(max_concurrency=1))
def alone(ctx: ActionContext, payload: In) -> Out:
    ctx.done().wait(payload.seconds)
    if ctx.is_canceled():
        raise InterruptedError("canceled")
    return Out(payload.prompt)

def stay(payload: In) -> None:
    # For so many seconds, or until the file exists that the prompt names.
    end = time.monotonic() + payload.seconds
    while time.monotonic() < end and not (payload.prompt.startswith("/") and Path(payload.prompt).exists()):
        time.sleep(0.005)

@worker_function(ResourceRequirements(max_concurrency=1))
def alone_and_stubborn(ctx: ActionContext, payload: In) -> Out:
    stay(payload)
    return Out(payload.prompt)

@worker_function()
def nap(ctx: ActionContext, payload: In) -> Out:
    ctx.done().wait(payload.seconds)
    return Out("slept")

@worker_function()
def stubborn(ctx: ActionContext, payload: In) -> Out:
    stay(payload)
    return Out("woke up")
"""
