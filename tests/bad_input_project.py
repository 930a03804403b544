"""A project whose functions get wrong input, or misbehave themselves."""

CODE = """
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

class Leaf(msgspec.Struct):
    number: int
    note: str = ""

class Tree(msgspec.Struct):
    leaves: list[Leaf]
    share: float = 0.0

class Text(msgspec.Struct):
    prompt: str = ""

class File(msgspec.Struct):
    image: Asset

@dataclass
class Page:
    image: Asset
    steps: Annotated[int, Clamp(1, 50)] = 20

class Row(TypedDict):
    image: Asset

class Pair(NamedTuple):
    image: Asset

class Nested(msgspec.Struct):
    page: Page | None = None
    row: Row | None = None
    pair: Pair | None = None
    pages: dict[str, list[Page]] = {}

class Out(msgspec.Struct):
    text: str

@worker_function
def tree(ctx: ActionContext, payload: Tree) -> Out:
    return Out(str(payload.share))

@worker_function
def echo(ctx: ActionContext, payload: Text) -> Out:
    return Out(str(len(payload.prompt)))

@worker_function
def read(ctx: ActionContext, payload: File) -> Out:
    return Out(payload.image.read_bytes().decode())

@worker_function
def read_nested(ctx: ActionContext, payload: Nested) -> Out:
    pages = [*([payload.page] if payload.page else []), *[page for pages in payload.pages.values() for page in pages]]
    images = [page.image for page in pages] + ([payload.row["image"]] if payload.row else []) + ([payload.pair.image] if payload.pair else [])
    return Out(" ".join([image.read_bytes().decode() for image in images] + [str(page.steps) for page in pages]))

@worker_function
def save(ctx: ActionContext, payload: Text) -> Out:
    return Out(ctx.save_bytes(payload.prompt, b"x").ref)

@worker_function
def leave(ctx: ActionContext, payload: Text) -> Out:
    raise SystemExit(7)

@worker_function
async def aleave(ctx: ActionContext, payload: Text) -> Out:
    raise SystemExit(7)

@worker_function
async def aleave_by_task(ctx: ActionContext, payload: Text) -> Out:
    async def inner():
        raise SystemExit(7)
    task = asyncio.create_task(inner())
    await asyncio.sleep(0.05)
    return Out("on")

@worker_function
def interrupt(ctx: ActionContext, payload: Text) -> Out:
    raise KeyboardInterrupt

@worker_function
def endless(ctx: ActionContext, payload: Text) -> Iterator[Out]:
    while True:
        yield Out("again")

@worker_function
async def aendless(ctx: ActionContext, payload: Text) -> AsyncIterator[Out]:
    while True:
        yield Out("again")

@worker_function
def huge(ctx: ActionContext, payload: Text) -> Iterator[Out]:
    yield Out("small")
    yield Out("x" * 100_000)

@worker_function
def lies(ctx: ActionContext, payload: Text) -> Out:
    return {"text": payload.prompt}

@worker_function
def lies_in_a_stream(ctx: ActionContext, payload: Text) -> Iterator[Out]:
    yield "x"

@worker_function
def returns_nothing_to_stream(ctx: ActionContext, payload: Text) -> Iterator[Out]:
    return None

@worker_function
def odd(ctx: ActionContext, payload: Text) -> Out:
    return Out(object())

@worker_function
def secret(ctx: ActionContext, payload: Text) -> Out:
    raise ValidationError("no Bearer abc123 at https://h/x?sig=1 in /etc/shadow")

@worker_function
def stop_iteration(ctx: ActionContext, payload: Text) -> Out:
    return next(iter(()))

@worker_function
async def astop_iteration(ctx: ActionContext, payload: Text) -> Out:
    return next(iter(()))

@worker_function
def bug(ctx: ActionContext, payload: Text) -> Out:
    return {}["password-is-hunter2"]

@worker_function
def flood(ctx: ActionContext, payload: Text) -> Out:
    for number in range(50_000):
        ctx.log(f"line {number}")
    return Out("done")

@worker_function
async def blocks_the_loop(ctx: ActionContext, payload: Text) -> Out:
    while not Path(payload.prompt).exists():
        time.sleep(0.005)
    return Out("done")

@worker_function
def device(ctx: ActionContext, payload: Text) -> Out:
    sys.modules["torch"] = None
    try:
        return Out(str(ctx.device))
    finally:
        del sys.modules["torch"]
"""
