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
    try:
        image = Image.open(payload.image).convert("RGB")
    except UnidentifiedImageError:
        raise ValidationError(f"image is {payload.image.mime_type}, not a picture that can be read; send a PNG or JPEG") from None
    lines = split_lines(image)
    found = []
    for number, line in enumerate(lines, start=1):
        text, confidence = reader.read_line(line)
        ctx.progress(number / len(lines), stage="read")
        found.append(Line(text, round(confidence, 3)))
    return Text([line for line in found if line.text.strip()])
