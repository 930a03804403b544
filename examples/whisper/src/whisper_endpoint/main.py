"""Speech to text, with times."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
from transformers import AutoProcessor, WhisperForConditionalGeneration

from gen_worker import ActionContext, Asset, ModelRef, ModelRefSource, ResourceRequirements, ValidationError, worker_function
from whisper_endpoint.audio import SAMPLING_RATE, read_audio

MAX_SECONDS = 2 * 3600
WINDOW_SECONDS = 30


class Recording(msgspec.Struct):
    """Speech in a file. Without a language the model finds it out."""

    audio: Annotated[Asset, msgspec.Meta(description="WAV, MP3, FLAC, OGG, M4A, WebM, or a video with sound")]
    language: Annotated[str, msgspec.Meta(description="A code such as 'en', or a name such as 'english'")] | None = None
    translate: Annotated[bool, msgspec.Meta(description="Write English, whatever is spoken")] = False


class Segment(msgspec.Struct):
    """Times are in seconds."""

    start: float
    end: float
    text: str


class Transcript(msgspec.Struct):
    text: str
    segments: list[Segment]
    duration_s: float


@worker_function(ResourceRequirements(max_concurrency=1))
def transcribe(
    ctx: ActionContext,
    model: Annotated[WhisperForConditionalGeneration, ModelRef(ModelRefSource.FIXED, "whisper")],
    processor: Annotated[AutoProcessor, ModelRef(ModelRefSource.FIXED, "whisper")],
    payload: Recording,
) -> Transcript:
    """Write down what is said."""
    assert payload.audio.local_path is not None
    samples = read_audio(Path(payload.audio.local_path), max_seconds=MAX_SECONDS)
    if not samples.size:
        return Transcript("", [], 0.0)
    # One window of 30 s is filled up; what is longer is read window after window.
    length: dict[str, Any] = {"truncation": False, "padding": "longest"} if samples.size > WINDOW_SECONDS * SAMPLING_RATE else {}
    heard = processor(samples, sampling_rate=SAMPLING_RATE, return_tensors="pt", return_attention_mask=True, **length)

    def on_window(places: Any) -> None:
        if ctx.is_canceled():
            raise InterruptedError("canceled")
        seek, length = places[0].tolist()
        ctx.progress(min(seek / length, 1.0), stage="transcribe")

    try:
        spoken = model.generate(
            input_features=heard.input_features.to(model.device, model.dtype),
            attention_mask=heard.attention_mask.to(model.device),
            task="translate" if payload.translate else "transcribe",
            language=payload.language,
            return_timestamps=True,
            return_segments=True,
            monitor_progress=on_window,
        )
    except ValueError as exc:
        if "language" in str(exc):
            raise ValidationError(f"language {payload.language!r} is not one that the model knows; send a code such as 'en'") from None
        raise
    segments = [segment(part, processor) for part in spoken["segments"][0]]
    return Transcript(" ".join(part.text for part in segments).strip(), segments, round(samples.size / SAMPLING_RATE, 2))


def segment(part: dict[str, Any], processor: Any) -> Segment:
    """A segment as the model gives it, in seconds and text."""
    text = processor.decode(part["tokens"], skip_special_tokens=True).strip()
    return Segment(round(float(part["start"]), 2), round(float(part["end"]), 2), text)
