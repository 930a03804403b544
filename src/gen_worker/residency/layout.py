"""Where the tensors of a weight file lie in memory. Pure.

Files pack tensors back to back, so one tensor of odd size shifts all that follow. Tensor-core kernels want addresses
that are multiples of at least 16, and torch's own CUDA allocations start at multiples of 512. On other addresses the
libraries choose slower kernels with different rounding. So a file has an *image*: its tensors in file order, each at a
multiple of ALIGN. Bytes are arranged into images while they are read. Slabs, host memory and the copies between them
deal with whole images only, and copies stay large.
"""

from collections.abc import Callable, Iterator, Sequence

import msgspec

from gen_worker.sources.weight_files import TensorEntry

ALIGN = 256


class Run(msgspec.Struct, frozen=True):
    """Bytes that are contiguous both in the file (from byte `start`) and in the image (from byte `at`)."""

    start: int
    at: int
    size: int


class Image(msgspec.Struct, frozen=True):
    """`offsets`: where each entry begins, in entry order. `size_bytes` is a multiple of ALIGN."""

    runs: tuple[Run, ...]
    offsets: tuple[int, ...]
    size_bytes: int


def aligned(size_bytes: int) -> int:
    """The next multiple of ALIGN."""
    return -(-size_bytes // ALIGN) * ALIGN


def image_of(entries: Sequence[TensorEntry], data_start: int) -> Image:
    """The image of a file whose tensors begin at byte `data_start`. `entries` are in file order, without gaps."""
    runs: list[Run] = []
    offsets: list[int] = []
    start, first, at = data_start, 0, 0  # the current run: where it begins in the file and in the image, and where it ends
    for entry in entries:
        offset = aligned(at)
        if offset != at:  # the last tensor's size breaks the alignment, so a new run starts here
            runs.append(Run(start, first, at - first))
            start, first = data_start + entry.start, offset
        offsets.append(offset)
        at = offset + entry.end - entry.start
    if at > first:
        runs.append(Run(start, first, at - first))
    return Image(tuple(runs), tuple(offsets), aligned(at))


class Slice(msgspec.Struct, frozen=True):
    """Part of an image, `[at, end)`. Its bytes are contiguous in the file from byte `start`, and go to these ranges of the image."""

    at: int
    end: int
    start: int
    ranges: tuple[tuple[int, int], ...]


def slices_of(image: Image, piece: Callable[[], int], most_ranges: int) -> Iterator[Slice]:
    """Cut an image into slices of at most `most_ranges` ranges and `piece()` bytes (asked as each slice begins). Only
    alignment gaps lie between slices.
    """
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
