"""A project whose functions return values that a page must not trust, and more than it can show; for tests of the console."""

CODE = '''
import base64, struct, zlib
from typing import Any

EVIL = """<img src=x onerror="window.pwned='yes'"><script>window.pwned='yes'</script></pre></textarea>"""


def png(red: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    rows = (b"\\0" + bytes((red, 90, 160)) * 16) * 16
    return b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class Wait(msgspec.Struct):
    go: str = ""


class Drawn(msgspec.Struct):
    image: Asset


@worker_function
def sketch(ctx: ActionContext, payload: Wait) -> Drawn:
    "Shows what it has so far, then draws when the file `go` is there."
    ctx.emit("preview", {"image": "data:image/png;base64," + base64.b64encode(png(200)).decode(), "step": 4})
    for wrong in ("data:image/svg+xml;base64,PHN2Zz4=", "https://example.com/x.png", "javascript:alert(1)", "data:text/html;base64,PGI+", EVIL, 7):
        ctx.emit("preview", {"image": wrong, "step": 5})
    while not Path(payload.go).is_file():
        if ctx.is_canceled():
            raise InterruptedError("canceled")
        time.sleep(0.01)
    return Drawn(ctx.save_bytes(f"runs/{ctx.run_id}/outputs/drawn.png", png(20)))


class Evil(msgspec.Struct, kw_only=True):
    how: Annotated[str, msgspec.Meta(description=EVIL, examples=[EVIL])]


class Said(msgspec.Struct):
    text: str
    more: Any = None


@worker_function
def evil(ctx: ActionContext, payload: Evil) -> Said:
    ctx.log(EVIL)
    ctx.progress(0.5, stage=EVIL)
    ctx.emit(EVIL, {EVIL: EVIL})
    if payload.how == "raise":
        raise ValueError(EVIL)
    ctx.save_bytes(f"runs/{ctx.run_id}/outputs/<img src=x onerror=alert(1)>.png", png(20))
    ctx.save_bytes(f"runs/{ctx.run_id}/outputs/page.html", EVIL.encode())
    return Said(EVIL, {EVIL: [EVIL, {"ref": "javascript:alert(1)/x", "sha256": "0" * 64, "mime_type": "image/png"}]})


class Much(msgspec.Struct):
    megabytes: float = 0.0
    pieces: int = 0
    events: int = 0


@worker_function
def much(ctx: ActionContext, payload: Much) -> Said:
    for number in range(payload.events):
        ctx.log(f"line {number} of many")
    return Said("x" * int(payload.megabytes * 1e6), list(range(payload.pieces)))


class Word(msgspec.Struct):
    text: str


@worker_function
def words(ctx: ActionContext, payload: Much) -> Iterator[Word]:
    for number in range(payload.pieces):
        yield Word(f"w{number} ")


class Taken(msgspec.Struct, kw_only=True):
    first: Asset
    second: Annotated[Asset | None, msgspec.Meta(extra_json_schema={"contentMediaType": "image/*"})] = None
    many: Annotated[list[Asset], msgspec.Meta(max_length=3)] = []


class Sizes(msgspec.Struct):
    first: int | None
    second: int | None
    many: list[int | None]


@worker_function
def take(ctx: ActionContext, payload: Taken) -> Sizes:
    return Sizes(payload.first.size_bytes, payload.second and payload.second.size_bytes, [each.size_bytes for each in payload.many])
'''
