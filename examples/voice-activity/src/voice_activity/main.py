"""Voice activity: over a websocket while somebody speaks, or of a recording at once."""

import wave
from collections.abc import Iterator
from typing import Annotated

import msgspec

from gen_worker import (
    ActionContext,
    Asset,
    ModelRef,
    ModelRefSource,
    RealtimeSocket,
    ResourceRequirements,
    ValidationError,
    worker_function,
    worker_websocket,
)
from voice_activity.detector import RATE, Change, Listener, VoiceDetector

PIECE = RATE * 2  # bytes of a recording that are read at once: one second
# How files begin that people send in place of samples.
FILES = {b"RIFF": "a WAV file", b"OggS": "an Ogg file", b"fLaC": "a FLAC file", b"ID3": "an MP3 file", b"\x1aE\xdf\xa3": "a WebM file"}
Detector = Annotated[VoiceDetector, ModelRef(ModelRefSource.FIXED, "vad")]


class Recording(msgspec.Struct):
    file: Annotated[Asset, msgspec.Meta(description="A WAV file: 16 bits, one channel, 16 kHz")]


class Speech(msgspec.Struct):
    """Seconds since the recording began."""

    start: float
    end: float


class Found(msgspec.Struct):
    speech: list[Speech]
    duration: float


@worker_websocket(ResourceRequirements(max_concurrency=64))
async def listen(ctx: ActionContext, socket: RealtimeSocket, detector: Detector) -> None:
    """Send sound as it is recorded: 16-bit samples, one channel, 16 kHz, in messages of any size. An empty message ends it."""
    listener = Listener(detector)
    first = True
    async for piece in socket.iter_bytes():
        if first and (kind := next((kind for begin, kind in FILES.items() if piece.startswith(begin)), None)):
            await socket.send_json({"event": "error", "message": f"this is {kind}; send its samples alone: 16 bits, one channel, 16 kHz"})
            raise ValidationError(f"{kind} was sent, samples were expected")
        first = False
        if not piece:
            break
        for change in listener.hear(piece):
            await socket.send_json(msgspec.to_builtins(change))
    for change in listener.end():
        await socket.send_json(msgspec.to_builtins(change))
    ctx.log(f"{listener.seconds:.1f} s heard")


@worker_function()
def detect(ctx: ActionContext, detector: Detector, payload: Recording) -> Found:
    """The stretches of a recording in which somebody speaks."""
    listener = Listener(detector)
    changes: list[Change] = []
    try:
        with wave.open(str(payload.file.local_path), "rb") as sound:
            form = sound.getsampwidth() * 8, sound.getnchannels(), sound.getframerate()
            if form != (16, 1, RATE):
                raise ValidationError(
                    f"the recording has {form[0]} bits, {form[1]} channels, {form[2]} Hz; expected 16, 1, {RATE}. Convert it: "
                    f"ffmpeg -i IN -ac 1 -ar {RATE} -c:a pcm_s16le OUT.wav"
                )
            frames = sound.getnframes()
            while piece := sound.readframes(PIECE // 2):
                changes += listener.hear(piece)
                ctx.progress(min(listener.seconds * RATE / frames, 1.0), stage="listen")
    except (wave.Error, EOFError) as exc:
        kind, size = payload.file.mime_type, payload.file.size_bytes
        raise ValidationError(f"file is {kind} of {size} bytes, and no WAV file: {str(exc) or 'it ends too early'}") from None
    duration = round(frames / RATE, 2)
    changes += listener.end()  # a beginning and an end, in turn
    return Found([Speech(begin.at_s, min(end.at_s, duration)) for begin, end in pairs(changes)], duration)


def pairs(changes: list[Change]) -> Iterator[tuple[Change, Change]]:
    """Beginnings with their ends."""
    return zip(changes[::2], changes[1::2], strict=True)
