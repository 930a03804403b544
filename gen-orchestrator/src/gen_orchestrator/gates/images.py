"""Measures how different two images look: the mean absolute difference of their decoded pixels, 0 (the same) to 1 (black and white).

Uses pillow if it is installed. The files come from functions, so only common formats of moderate size are decoded.
Blocking.
"""

import importlib.util
import io
import warnings

MAX_PIXELS = 64 << 20  # for one frame
MAX_FRAMES = 64
FORMATS = ("PNG", "JPEG", "WEBP", "GIF")


def can_decode() -> bool:
    """Whether pillow is installed."""
    return importlib.util.find_spec("PIL") is not None


def image_distance(one: bytes, other: bytes) -> float | None:
    """1 for images with different sizes or numbers of frames; None when one of them cannot be decoded here."""
    if not can_decode():
        return None
    from PIL import Image, ImageChops, ImageSequence, ImageStat

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mine, theirs = (Image.open(io.BytesIO(data), formats=FORMATS) for data in (one, other))
            if mine.size != theirs.size:
                return 1.0
            frames = (getattr(mine, "n_frames", 1), getattr(theirs, "n_frames", 1))
            if mine.width * mine.height > MAX_PIXELS or max(frames) > MAX_FRAMES:
                return None
            if frames[0] != frames[1]:
                return 1.0
            found = []
            for left, right in zip(ImageSequence.Iterator(mine), ImageSequence.Iterator(theirs), strict=True):
                mode = "RGBA" if left.has_transparency_data or right.has_transparency_data else "RGB"
                apart = ImageChops.difference(left.convert(mode), right.convert(mode))
                found.extend(ImageStat.Stat(apart).mean)
            return float(sum(found) / len(found) / 255)
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, Image.DecompressionBombError):  # pillow's errors for damaged files
        return None
