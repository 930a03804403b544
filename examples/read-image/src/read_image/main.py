"""A picture in, its text out: a file input, and a model class of the author's own."""

from typing import Annotated

import msgspec
from PIL import Image, UnidentifiedImageError

from gen_worker import ActionContext, Asset, ModelRef, ModelRefSource, ValidationError, worker_function
from read_image.reader import LineReader, split_lines


class Scan(msgspec.Struct):
    image: Annotated[Asset, msgspec.Meta(description="A picture of printed text on a plain background")]


class Line(msgspec.Struct):
    text: str
    confidence: float


class Text(msgspec.Struct):
    lines: list[Line]


@worker_function()
def read(
    ctx: ActionContext,
    reader: Annotated[LineReader, ModelRef(ModelRefSource.FIXED, "ocr")],
    payload: Scan,
) -> Text:
    """Read the printed lines of a picture."""
    lines = split_lines(open_picture(payload.image))
    found = []
    for number, line in enumerate(lines, start=1):
        text, confidence = reader.read_line(line)
        ctx.progress(number / len(lines), stage="read")
        found.append(Line(text, round(confidence, 3)))
    return Text([line for line in found if line.text.strip()])


def open_picture(file: Asset) -> Image.Image:
    """The picture on white, where it is transparent. `ValidationError` says why a file is none."""
    kind = f"image is {file.mime_type} of {file.size_bytes} bytes"
    try:
        picture = Image.open(file).convert("RGBA")
    except UnidentifiedImageError:
        raise ValidationError(f"{kind}, not a picture that can be read; send a PNG or JPEG") from None
    except Image.DecompressionBombError as exc:
        raise ValidationError(f"{kind}, and too large: {exc}") from None
    except (OSError, SyntaxError, ValueError) as exc:  # what Pillow raises for one that breaks off
        raise ValidationError(f"{kind}, and damaged: {exc}; send it again") from None
    page = Image.new("RGBA", picture.size, "white")
    page.alpha_composite(picture)
    return page.convert("RGB")
