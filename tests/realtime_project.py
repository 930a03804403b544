"""The websocket handlers that the dev runner's tests open."""

CODE = '''
import threading

GATE = threading.Event()

class Nothing(msgspec.Struct):
    pass

class Said(msgspec.Struct):
    text: str

@worker_websocket()
async def mirror(ctx: ActionContext, sock: RealtimeSocket) -> None:
    """Give each frame back.

    `close`, `fail` and `json` do what they say.
    """
    async for data in sock.iter_bytes():
        if data == b"close":
            await sock.close()
            return
        if data == b"fail":
            raise ValueError("as asked")
        if data == b"json":
            await sock.send_json({"b": 1, "a": ctx.run_id, "owner": ctx.owner})
        else:
            await sock.send_bytes(data)

@worker_websocket()
async def once(ctx: ActionContext, sock: RealtimeSocket) -> None:
    async for data in sock.iter_bytes():
        await sock.send_bytes(data)
        return

@worker_websocket()
async def patient(ctx: ActionContext, sock: RealtimeSocket) -> None:
    ctx.progress(0.5)
    async for data in sock.iter_bytes():
        pass
    ctx.emit("custom.left", {"canceled": ctx.is_canceled()})

@worker_websocket()
async def gated(ctx: ActionContext, sock: RealtimeSocket) -> None:
    await asyncio.to_thread(GATE.wait, 60)
    frames = total = 0
    async for data in sock.iter_bytes():
        if data == b"sum":
            await sock.send_json([frames, total])
        else:
            frames, total = frames + 1, total + len(data)

@worker_function()
def open_gate(ctx: ActionContext, payload: Nothing) -> Said:
    GATE.set()
    return Said("open")

@worker_websocket()
async def flood(ctx: ActionContext, sock: RealtimeSocket) -> None:
    async for data in sock.iter_bytes():
        frames, size = map(int, data.split())
        for n in range(frames):
            await sock.send_bytes(n.to_bytes(4, "big") + bytes(size))

@worker_websocket(ResourceRequirements(max_concurrency=2))
async def pair(ctx: ActionContext, sock: RealtimeSocket) -> None:
    async for data in sock.iter_bytes():
        await sock.send_bytes(data)

@worker_websocket()
async def reads_model(ctx: ActionContext, sock: RealtimeSocket, folder: Annotated[Path, ModelRef(ModelRefSource.FIXED, "a")]) -> None:
    async for data in sock.iter_bytes():
        await sock.send_bytes((folder / data.decode()).read_bytes())

@worker_websocket()
async def stubborn(ctx: ActionContext, sock: RealtimeSocket) -> None:
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if ctx.is_canceled():
                raise

@worker_function()
def echo(ctx: ActionContext, payload: Nothing) -> Said:
    return Said("x")
'''
COZY = '[models]\na = "hf:demo/a"\n'
