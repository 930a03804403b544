"""How a slab is cut into the tensors of a module.

To make a view of a slab, torch gives the interpreter's lock away and takes it back. A thread that makes thousands of views beside a
function wakes that function as often, only for it to find the lock taken again. So all views of a dtype are made by one call; what it
needs to know is found out once, and kept for the next load.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import msgspec


class Piece(msgspec.Struct, frozen=True):
    """A tensor of a slab, from byte `at` on. `dtype` is torch's."""

    name: str
    at: int
    size_bytes: int
    dtype: Any
    shape: tuple[int, ...]


class Cut:
    """Pieces of a slab, in ascending order, and how to make them all at once."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = tuple(pieces)
        self._shapes: dict[Any, tuple[list[int | None], list[Any]]] = {}  # by dtype: the pieces' numbers, None for what lies between them

    def views(self, data: Any) -> list[Any]:
        """The pieces as views of a tensor of bytes."""
        import torch

        self._shapes = self._shapes or self._find_shapes(torch)
        made: list[Any] = [None] * len(self.pieces)
        for dtype, (numbers, shapes) in self._shapes.items():
            typed = data[: data.numel() // dtype.itemsize * dtype.itemsize].view(dtype)
            for number, view in zip(numbers, torch._utils._unflatten_dense_tensors(typed, shapes), strict=True):
                if number is not None:
                    made[number] = view
        for number, piece in enumerate(self.pieces):
            if made[number] is None:
                made[number] = data[:0].view(piece.dtype).view(piece.shape)
        return made

    def _find_shapes(self, torch: Any) -> dict[Any, tuple[list[int | None], list[Any]]]:
        found: dict[Any, tuple[list[int | None], list[Any]]] = {}
        ends: dict[Any, int] = {}
        for number, piece in enumerate(self.pieces):
            count, dtype = prod(piece.shape), piece.dtype
            if not count:
                continue  # torch would make one of another shape
            first, odd = divmod(piece.at, dtype.itemsize)
            if odd:
                raise ValueError(f"byte {piece.at} is no place for a tensor of {dtype}")
            numbers, shapes = found.setdefault(dtype, ([], []))
            if between := first - ends.get(dtype, 0):
                numbers.append(None)
                shapes.append(torch.empty(between, dtype=dtype, device="meta"))
            numbers.append(number)
            shapes.append(torch.empty(piece.shape, dtype=dtype, device="meta"))
            ends[dtype] = first + count
        return found
