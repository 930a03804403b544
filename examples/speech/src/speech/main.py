"""Text to speech by a Piper voice: a model of a type that gen-worker does not know, with a loader of its own."""

import io
import wave
from pathlib import Path
from typing import Annotated

import msgspec
from piper import PiperVoice, SynthesisConfig

from gen_worker import ActionContext, Asset, Clamp, ModelRef, ModelRefSource, ValidationError, model_loader, worker_function

MAX_CHARACTERS = 5000


class Speech(msgspec.Struct):
    """What to say, and how fast."""

    input: Annotated[str, msgspec.Meta(description="The text", examples=["The quick brown fox jumps over the lazy dog."])]
    voice: Annotated[str, msgspec.Meta(description="This endpoint has one voice: joe")] = "joe"
    speed: Annotated[float, Clamp(0.25, 4)] = 1.0
    response_format: Annotated[str, msgspec.Meta(description="This endpoint writes WAV")] = "wav"


class Spoken(msgspec.Struct):
    audio: Asset
    seconds: float


@model_loader(PiperVoice)
def load_voice(path: Path, device: str) -> PiperVoice:
    """The voice of a folder: an .onnx file, and its settings in a .json file of the same name."""
    found = sorted(path.glob("*.onnx"))
    if len(found) != 1:
        raise ValueError(f"expected one .onnx file in the voice's folder, found {[file.name for file in found]}")
    return PiperVoice.load(found[0], use_cuda=device.startswith("cuda"))


@worker_function(task="speech")
def speak(
    ctx: ActionContext,
    voice: Annotated[PiperVoice, ModelRef(ModelRefSource.FIXED, "voice")],
    payload: Speech,
) -> Spoken:
    """Read a text aloud."""
    if not payload.input.strip():
        raise ValidationError("input is empty; send the text to read aloud")
    if len(payload.input) > MAX_CHARACTERS:
        raise ValidationError(f"input has {len(payload.input)} characters, at most {MAX_CHARACTERS} are read at once; split it")
    if payload.voice != "joe":
        raise ValidationError(f"no voice {payload.voice!r}; this endpoint has one: 'joe'")
    if payload.response_format != "wav":
        raise ValidationError(f"response_format is {payload.response_format!r}; this endpoint writes 'wav' only")
    sentences = len(voice.phonemize(payload.input))
    settings = SynthesisConfig(length_scale=voice.config.length_scale / payload.speed)
    file = io.BytesIO()
    samples = 0
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, voice.config.sample_rate, 0, "NONE", "NONE"))
        for number, piece in enumerate(voice.synthesize(payload.input, settings), start=1):  # sentence by sentence
            if ctx.is_canceled():
                raise InterruptedError("canceled")
            sound.writeframes(piece.audio_int16_bytes)
            samples += len(piece.audio_int16_array)
            ctx.progress(min(number / sentences, 1.0), stage="speak")
    if not samples:
        raise ValidationError(f"nothing in {payload.input[:40]!r} can be said aloud; send words")
    audio = ctx.save_bytes(f"runs/{ctx.run_id}/outputs/spoken.wav", file.getvalue())
    return Spoken(audio, round(samples / voice.config.sample_rate, 2))
