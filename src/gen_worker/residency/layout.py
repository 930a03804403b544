"""Where the tensors of a weight file lie in memory. Pure.

Files pack tensors one behind the other; an odd one shifts all that follow. Kernels of tensor cores want addresses that are multiples of 16
at least, torch's own allocations on CUDA begin at multiples of 512: on other addresses the libraries take slower kernels, with other
rounding. So a file has an *image*: its tensors in the file's order, each at a multiple of ALIGN. Bytes are gathered into images while
they are read, so that slabs, host memory and the copies between them know images only, and stay as large as they are.
"""

from collections.abc import Callable, Iterator, Sequence

import msgspec

from gen_worker.sources.weight_files import TensorEntry

ALIGN = 256


class Run(msgspec.Struct, frozen=True):
    """Bytes that lie in the image as they lie in the file: from byte `start` of the file, at byte `at` of the image."""

    start: int
    at: int
    size: int


class Image(msgspec.Struct, frozen=True):
    """`offsets`: where each entry begins, in the order of the entries. `size_bytes` is a multiple of ALIGN."""

    runs: tuple[Run, ...]
    offsets: tuple[int, ...]
    size_bytes: int


def aligned(size_bytes: int) -> int:
    """The next multiple of ALIGN."""
    return -(-size_bytes // ALIGN) * ALIGN


def image_of(entries: Sequence[TensorEntry], data_start: int) -> Image:
    """The image of a file whose tensors begin at byte `data_start`. `entries` in the file's order, without gaps between them."""
    runs: list[Run] = []
    offsets: list[int] = []
    start, first, at = data_start, 0, 0  # of the run that grows: where it begins in the file and in the image, and where it ends
    for entry in entries:
        offset = aligned(at)
        if offset != at:  # the size of the last one breaks the alignment: what follows is a run of its own
            runs.append(Run(start, first, at - first))
            start, first = data_start + entry.start, offset
        offsets.append(offset)
        at = offset + entry.end - entry.start
    if at > first:
        runs.append(Run(start, first, at - first))
    return Image(tuple(runs), tuple(offsets), aligned(at))


class Slice(msgspec.Struct, frozen=True):
    """Part of an image, `[at, end)`; its bytes lie together in the file from `start`, and go to these ranges of the image."""

    at: int
    end: int
    start: int
    ranges: tuple[tuple[int, int], ...]


def slices_of(image: Image, piece: Callable[[], int], most_ranges: int) -> Iterator[Slice]:
    """Cut an image into slices of at most `most_ranges` and so many bytes as `piece` says when each begins; between them lie only gaps."""
    ranges: list[tuple[int, int]] = []
    start = piece_bytes = 0
    for run in image.runs:
        done = 0
        while done < run.size:
            at = run.at + done
            if not ranges:
                piece_bytes = piece()
            room = piece_bytes - (at - ranges[0][0]) if ranges else piece_bytes
            if ranges and (room <= 0 or len(ranges) == most_ranges):
                yield Slice(ranges[0][0], ranges[-1][1], start, tuple(ranges))
                ranges = []
                continue
            if not ranges:
                start = run.start + done
            size = min(run.size - done, room)
            ranges.append((at, at + size))
            done += size
    if ranges:
        yield Slice(ranges[0][0], ranges[-1][1], start, tuple(ranges))
