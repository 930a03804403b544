"""Read printed lines with PP-OCRv4's recognition network: a class with `from_pretrained(path)`, as the worker injects it."""

from pathlib import Path
from typing import Self

import numpy as np
import onnxruntime
from PIL import Image

HEIGHT = 48  # pixels; the network's fixed input height
MIN_LINE_HEIGHT = 6
INK_CONTRAST = 0.25  # share of the picture's full contrast that counts as ink


class LineReader:
    """One onnxruntime session. `run` is safe from several threads."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name
        characters = session.get_modelmeta().custom_metadata_map["character"].splitlines()
        self._alphabet = ["", *characters, " "]  # CTC: index 0 is the blank

    @classmethod
    def from_pretrained(cls, path: str) -> Self:
        """Load `ch_PP-OCRv4_rec_infer.onnx` from a folder."""
        model = Path(path) / "ch_PP-OCRv4_rec_infer.onnx"
        if not model.is_file():
            raise FileNotFoundError(f"no {model.name} in {model.parent.name}")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        return cls(onnxruntime.InferenceSession(str(model), options, providers=onnxruntime.get_available_providers()))

    def read_line(self, line: Image.Image) -> tuple[str, float]:
        """The text of one line, and the mean probability of its characters."""
        width = max(HEIGHT, round(line.width * HEIGHT / line.height))
        pixels = np.asarray(line.convert("RGB").resize((width, HEIGHT), Image.Resampling.BILINEAR), dtype=np.float32)
        batch = ((pixels[:, :, ::-1] / 255 - 0.5) / 0.5).transpose(2, 0, 1)[None]  # (1, 3, 48, width), BGR in [-1, 1]
        (scores,) = self._session.run(None, {self._input: np.ascontiguousarray(batch)})
        best = scores[0].argmax(axis=1)
        kept = [step for step in range(len(best)) if best[step] != 0 and (step == 0 or best[step] != best[step - 1])]
        text = "".join(self._alphabet[best[step]] for step in kept)
        return text, float(np.mean([scores[0, step, best[step]] for step in kept])) if kept else 0.0


def split_lines(image: Image.Image) -> list[Image.Image]:
    """Lines of text from top to bottom, on a plain background: rows with ink in them, a little margin around."""
    grey = np.asarray(image.convert("L"), dtype=np.float32)
    ink = np.abs(grey - np.median(grey)) > INK_CONTRAST * 255
    rows, columns = ink.any(axis=1), np.flatnonzero(ink.any(axis=0))
    if columns.size == 0:
        return []
    edges = np.flatnonzero(np.diff(np.concatenate([[False], rows, [False]]).astype(np.int8)))
    lines = []
    for top, bottom in zip(edges[::2], edges[1::2], strict=True):
        if bottom - top >= MIN_LINE_HEIGHT:
            margin = int((bottom - top) // 4)
            left, right = int(columns[0]) - margin, int(columns[-1]) + 1 + margin
            upper, lower = int(top) - margin, int(bottom) + margin
            lines.append(image.crop((max(0, left), max(0, upper), min(image.width, right), min(image.height, lower))))
    return lines
