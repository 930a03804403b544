"""Send a recording as a microphone would, and print what comes back. Needs: pip install websockets

python client.py ws://127.0.0.1:8081/v1/realtime/listen two-sentences.wav
"""

import asyncio
import sys
import wave

import websockets


async def main(url: str, path: str) -> None:
    async with websockets.connect(url) as socket, asyncio.TaskGroup() as tasks:
        tasks.create_task(send(socket, path))
        async for message in socket:
            print(message)


async def send(socket: websockets.ClientConnection, path: str) -> None:
    with wave.open(path, "rb") as sound:
        piece = sound.getframerate() // 10  # a tenth of a second
        while samples := sound.readframes(piece):
            await socket.send(samples)
            await asyncio.sleep(0.1)
    await socket.send(b"")


asyncio.run(main(*sys.argv[1:]))
