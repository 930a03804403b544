"""Any audio or video file to what Whisper hears."""

from pathlib import Path

import av
import numpy as np

from gen_worker import ValidationError

SAMPLING_RATE = 16_000


def read_audio(path: Path, *, max_seconds: float) -> np.ndarray:
    """The file's first audio stream as float32 samples at 16 kHz, one channel. `ValidationError` for what cannot be heard."""
    if path.stat().st_size == 0:
        raise ValidationError("the file is empty (0 bytes); send a recording, such as WAV, MP3, FLAC, M4A or a video with sound")
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLING_RATE)
    pieces: list[np.ndarray] = []
    samples = 0
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise ValidationError("the file has no audio stream; send a recording, such as WAV, MP3, FLAC, M4A or a video with sound")
            for frame in container.decode(audio=0):
                for piece in resampler.resample(frame):
                    pieces.append(piece.to_ndarray().reshape(-1))
                    samples += pieces[-1].size
                if samples > max_seconds * SAMPLING_RATE:
                    raise ValidationError(f"the recording is longer than {max_seconds:g} s; split it")
            pieces += [piece.to_ndarray().reshape(-1) for piece in resampler.resample(None)]
    except av.FFmpegError as exc:
        raise ValidationError(f"the file cannot be read as audio: {exc.strerror}; send WAV, MP3, FLAC, OGG, M4A or WebM") from None
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
