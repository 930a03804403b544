"""A project whose functions take and return every kind of value, for tests of the console."""

CODE = """
import struct, zlib
from typing import Any, Literal


def png(red: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = (b"\\0" + bytes((red, 90, 160)) * 16) * 16
    return b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class Say(msgspec.Struct):
    prompt: Annotated[str, msgspec.Meta(description="What to <i>say</i>")]
    times: Annotated[int, Clamp(1, 5)] = 2


class Piece(msgspec.Struct):
    text: str


@worker_function
def say(ctx: ActionContext, payload: Say) -> Iterator[Piece]:
    "Says it, <b>piece by piece</b>."
    for _ in range(payload.times):
        yield Piece(f"<b>{payload.prompt}</b> ")


class Cat(msgspec.Struct, tag=True):
    lives: int = 9


class Dog(msgspec.Struct, tag=True):
    name: str


class Options(msgspec.Struct, kw_only=True):
    strength: Annotated[float, Clamp(0, 1)] = 0.5
    style: Literal["oil", "ink"] = "ink"


class All(msgspec.Struct, kw_only=True):
    seed: Annotated[int, msgspec.Meta(examples=[1])] = 7
    quality: Literal["fast", "good"] = "good"
    flag: bool | None = None
    on: bool = True
    options: Options
    pet: Cat | Dog = msgspec.field(default_factory=Cat)
    tags: list[str] = msgspec.field(default_factory=lambda: ["a"])
    weights: dict[str, float] = {}
    size: int | str = 3
    api_key: str = ""
    anything: Any = None


class Echo(msgspec.Struct):
    got: Any


@worker_function
def echo(ctx: ActionContext, payload: All) -> Echo:
    return Echo(msgspec.to_builtins(payload))


class Nothing(msgspec.Struct):
    pass


@worker_function
def slow(ctx: ActionContext, payload: Nothing) -> Iterator[Piece]:
    ctx.emit("task.model.progress", {"model_id": "hf:owner/big", "phase": "downloading", "bytes_done": 25000000, "bytes_total": 100000000, "rate_bytes_s": 5000000, "eta_s": 15.0})
    ctx.progress(0.25, stage="denoise")
    yield Piece("")
    ctx.log("half <b>way</b>")
    while not ctx.is_canceled():
        yield Piece("from slow ")
        time.sleep(0.05)


class Picture(msgspec.Struct):
    image: Asset | None = None
    count: int = 3


class Saved(msgspec.Struct):
    text: str


class Many(msgspec.Struct):
    images: list[Asset] = []
    raw: bytes = b""


class Sizes(msgspec.Struct):
    sizes: list[int | None]
    raw: str


@worker_function
def measure_all(ctx: ActionContext, payload: Many) -> Sizes:
    return Sizes([each.size_bytes for each in payload.images], payload.raw.decode())


class Preview(msgspec.Struct):
    image: Asset
    step: int


@worker_function
def steps(ctx: ActionContext, payload: Nothing) -> Iterator[Preview]:
    for number in range(2):
        yield Preview(ctx.save_bytes(f"runs/{ctx.run_id}/outputs/step {number}#.png", png(100 * number)), number)
    while not ctx.is_canceled():
        time.sleep(0.01)


class Tree(msgspec.Struct):
    name: str = "root"
    child: "Tree | None" = None


@worker_function
def constructor(ctx: ActionContext, payload: Nothing) -> Saved:
    return Saved("its name is one of every object's")


class Point(msgspec.Struct, array_like=True):
    x: int = 1
    y: float = 2.5


@worker_function
def place(ctx: ActionContext, payload: Point) -> Echo:
    return Echo({"x": payload.x, "y": payload.y})


@worker_function
def grow(ctx: ActionContext, payload: Tree) -> Echo:
    return Echo(msgspec.to_builtins(payload))


@worker_function
def draw(ctx: ActionContext, payload: Picture) -> Saved:
    for number in range(payload.count):
        ctx.save_bytes(f"runs/{ctx.run_id}/outputs/{number}.png", png(80 * number))
    ctx.save_bytes(f"runs/{ctx.run_id}/outputs/evil.svg", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    ctx.save_bytes(f"runs/{ctx.run_id}/outputs/tone.wav", b"RIFF\\x26\\0\\0\\0WAVEfmt \\x10\\0\\0\\0\\1\\0\\1\\0\\x40\\x1f\\0\\0\\x40\\x1f\\0\\0\\1\\0\\x08\\0data\\2\\0\\0\\0\\x80\\x80")
    return Saved("no file" if payload.image is None else f"{payload.image.size_bytes} bytes")


@worker_websocket()
async def chat(ctx: ActionContext, socket: RealtimeSocket) -> None:
    "Talk with <i>it</i>."
    async for data in socket.iter_bytes():
        if data == b"fail":
            raise ValueError("as <b>asked</b>")
        await (socket.send_json({"heard": len(data)}) if len(data) > 20 else socket.send_bytes(data))
"""
