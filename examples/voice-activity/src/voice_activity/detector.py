"""When somebody speaks: Silero's network, and what turns its probabilities into beginnings and ends."""

from pathlib import Path
from typing import Self

import msgspec
import numpy as np
import onnxruntime

RATE = 16_000  # samples a second
WINDOW = 512  # samples that the network hears at once: 32 ms
CONTEXT = 64  # samples of the window before, which it hears again
SPEECH, SILENCE = 0.5, 0.35  # probabilities: from one on it is speech, below the other it is none
PATIENCE = RATE * 2 // 5  # samples of silence that a speaker may take between two words
PAD = RATE * 30 // 1000  # samples by which speech begins earlier and ends later than it is noticed


class Change(msgspec.Struct, tag_field="event", rename={"at_s": "at"}):
    """Speech begins, or it has ended, at this second since the sound began."""

    at_s: float


class SpeechStarted(Change, tag="speech_started"):
    pass


class SpeechEnded(Change, tag="speech_ended"):
    seconds: float


class VoiceDetector:
    """The network. It keeps nothing between calls: any number of listeners share it."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session

    @classmethod
    def from_pretrained(cls, path: str) -> Self:
        """Load `model.onnx`, or `silero_vad.onnx`, from a folder or the folder `onnx` in it."""
        found = [file for name in ("model.onnx", "silero_vad.onnx") for file in sorted(Path(path).rglob(name))]
        if not found:
            raise FileNotFoundError(f"no model.onnx and no silero_vad.onnx in {Path(path).name}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # 0.1 ms a window: threads would cost more than they bring
        options.log_severity_level = 3
        return cls(onnxruntime.InferenceSession(str(found[0]), options, providers=["CPUExecutionProvider"]))

    def probability(self, heard: np.ndarray, state: np.ndarray) -> tuple[float, np.ndarray]:
        """Of speech in `CONTEXT + WINDOW` samples, float32 from -1 to 1; and the state for the next window, (2, 1, 128)."""
        speech, state = self._session.run(None, {"input": heard[None], "state": state, "sr": np.array(RATE, np.int64)})
        return float(speech[0, 0]), state


class Listener:
    """One stream of sound, given in pieces of any size: 16-bit samples, one channel, 16 kHz."""

    def __init__(self, detector: VoiceDetector) -> None:
        self._detector = detector
        self._waiting = b""
        self._context: np.ndarray = np.zeros(CONTEXT, np.float32)
        self._state: np.ndarray = np.zeros((2, 1, 128), np.float32)
        self._samples = 0
        self._began: int | None = None
        self._silent_since: int | None = None

    @property
    def seconds(self) -> float:
        """Heard so far."""
        return self._samples / RATE

    def hear(self, piece: bytes) -> list[Change]:
        """What has changed by this piece."""
        self._waiting += piece
        found: list[Change] = []
        while len(self._waiting) >= 2 * WINDOW:
            window, self._waiting = self._waiting[: 2 * WINDOW], self._waiting[2 * WINDOW :]
            if change := self._window(np.frombuffer(window, "<i2").astype(np.float32) / 32768):
                found.append(change)
        return found

    def end(self) -> list[Change]:
        """The sound is over; speech that still goes on ends with it."""
        rest = self._waiting[: len(self._waiting) // 2 * 2]
        found = self.hear(bytes(2 * WINDOW - len(rest))) if rest else []
        return found if self._began is None else [*found, self._end(self._samples)]

    def _window(self, window: np.ndarray) -> Change | None:
        probability, self._state = self._detector.probability(np.concatenate([self._context, window]), self._state)
        self._context = window[-CONTEXT:]
        begin, self._samples = self._samples, self._samples + WINDOW
        if probability >= SPEECH:
            self._silent_since = None
            if self._began is None:
                self._began = max(0, begin - PAD)
                return SpeechStarted(round(self._began / RATE, 2))
        elif probability < SILENCE and self._began is not None:
            self._silent_since = begin if self._silent_since is None else self._silent_since
            if self._samples - self._silent_since >= PATIENCE:
                return self._end(self._silent_since + PAD)
        return None

    def _end(self, at: int) -> SpeechEnded:
        assert self._began is not None
        seconds, self._began, self._silent_since = (at - self._began) / RATE, None, None
        return SpeechEnded(round(at / RATE, 2), round(seconds, 2))
