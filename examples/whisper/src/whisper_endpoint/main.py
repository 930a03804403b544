"""Speech to text, with times."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
from transformers import AutoProcessor, WhisperForConditionalGeneration

from gen_worker import ActionContext, Asset, ModelRef, ModelRefSource, ResourceRequirements, ValidationError, worker_function
from gen_worker.tasks import TranscriptionOutput, TranscriptionSegment
from whisper_endpoint.audio import SAMPLING_RATE, read_audio

MAX_SECONDS = 2 * 3600
WINDOW_SECONDS = 30


class Recording(msgspec.Struct):
    """Speech in a file. Without a language the model finds it out."""

    file: Annotated[Asset, msgspec.Meta(description="WAV, MP3, FLAC, OGG, M4A, WebM, or a video with sound")]
    language: Annotated[str, msgspec.Meta(description="A code such as 'en', or a name such as 'english'")] | None = None
    translate: Annotated[bool, msgspec.Meta(description="Write English, whatever is spoken")] = False


@worker_function(ResourceRequirements(max_concurrency=1), task="transcription")
def transcribe(
    ctx: ActionContext,
    model: Annotated[WhisperForConditionalGeneration, ModelRef(ModelRefSource.FIXED, "whisper")],
    processor: Annotated[AutoProcessor, ModelRef(ModelRefSource.FIXED, "whisper")],
    payload: Recording,
) -> TranscriptionOutput:
    """Write down what is said."""
    assert payload.file.local_path is not None
    samples = read_audio(Path(payload.file.local_path), max_seconds=MAX_SECONDS)
    if not samples.size:
        raise ValidationError(f"the recording has no sound in it: {payload.file.size_bytes} bytes, no samples")
    # One window of 30 s is filled up; what is longer is read window after window.
    length: dict[str, Any] = {"truncation": False, "padding": "longest"} if samples.size > WINDOW_SECONDS * SAMPLING_RATE else {}
    heard = processor(samples, sampling_rate=SAMPLING_RATE, return_tensors="pt", return_attention_mask=True, **length)

    features = heard.input_features.to(model.device, model.dtype)
    language = payload.language or language_of(features, model, processor)

    def on_window(places: Any) -> None:
        if ctx.is_canceled():
            raise InterruptedError("canceled")
        seek, length = places[0].tolist()
        ctx.progress(min(seek / length, 1.0), stage="transcribe")

    try:
        spoken = model.generate(
            input_features=features,
            attention_mask=heard.attention_mask.to(model.device),
            task="translate" if payload.translate else "transcribe",
            language=language,
            return_timestamps=True,
            return_segments=True,
            monitor_progress=on_window,
        )
    except ValueError as exc:
        if "language" in str(exc):
            raise ValidationError(f"language {payload.language!r} is not one that the model knows; send a code such as 'en'") from None
        raise
    segments = [segment(part, processor) for part in spoken["segments"][0]]
    text = " ".join(part.text for part in segments).strip()
    return TranscriptionOutput(text, language, round(samples.size / SAMPLING_RATE, 2), segments)


def language_of(features: Any, model: Any, processor: Any) -> str | None:
    """The language of the first window, as a code such as 'en'; None for a model that knows one only."""
    if not model.generation_config.is_multilingual:
        return None
    (token,) = model.detect_language(features[:, :, : 2 * model.config.max_source_positions]).tolist()
    return str(processor.decode([token])).strip("<|>")


def segment(part: dict[str, Any], processor: Any) -> TranscriptionSegment:
    """A segment as the model gives it, in seconds and text."""
    text = processor.decode(part["tokens"], skip_special_tokens=True).strip()
    return TranscriptionSegment(round(float(part["start"]), 2), round(float(part["end"]), 2), text)
