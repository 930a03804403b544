"""A slab is cut into tensors at the right places, whatever lies between them."""

from math import prod

import pytest

from gen_worker.residency.cut import Cut, Piece
from gen_worker.residency.layout import ALIGN, aligned

torch = pytest.importorskip("torch")

SHAPES = [
    ("half", torch.float16, (3, 5)),
    ("empty", torch.float16, (0, 5)),
    ("number", torch.float32, ()),
    ("bytes", torch.uint8, (ALIGN + 1,)),
    ("after", torch.float16, (7,)),
    ("flags", torch.bool, (9,)),
    ("eight", torch.float8_e4m3fn, (2, 2, 2)),
    ("long", torch.int64, (1, 3)),
    ("last", torch.float16, (2, 1, 2)),
]


def pieces() -> tuple[list[Piece], int]:
    found, at = [], ALIGN  # something else lies before the first
    for name, dtype, shape in SHAPES:
        size = prod(shape) * dtype.itemsize
        found.append(Piece(name, at, size, dtype, shape))
        at = aligned(at + size)
    return found, at


def test_each_piece_has_its_bytes_and_its_shape() -> None:
    found, size = pieces()
    cut = Cut(found)
    for seed in range(2):  # the second time by what the first has found out
        data = torch.randint(0, 2, (size,), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
        for piece, view in zip(found, cut.views(data), strict=True):
            assert (view.dtype, tuple(view.shape)) == (piece.dtype, piece.shape), piece.name
            expected = data[piece.at : piece.at + piece.size_bytes]
            assert view.is_contiguous()
            assert torch.equal(view.reshape(-1).view(torch.uint8), expected), piece.name


def test_the_pieces_are_views() -> None:
    """Bytes that come later are seen through them: a module has its tensors before its weights are there."""
    found, size = pieces()
    data = torch.zeros(size, dtype=torch.uint8)
    views = Cut(found).views(data)
    assert all(view.untyped_storage().data_ptr() == data.untyped_storage().data_ptr() for view in views if view.numel())
    data.fill_(1)
    assert all(view.reshape(-1).view(torch.uint8).eq(1).all() for view in views)


def test_a_slab_may_end_within_an_element_of_another_dtype() -> None:
    (view,) = Cut([Piece("a", 0, 4, torch.float32, (1,))]).views(torch.zeros(7, dtype=torch.uint8))
    assert view.tolist() == [0.0]


def test_a_piece_at_an_odd_byte_is_refused() -> None:
    with pytest.raises(ValueError, match=r"byte 3 is no place for a tensor of torch\.float32"):
        Cut([Piece("a", 3, 4, torch.float32, (1,))]).views(torch.zeros(8, dtype=torch.uint8))
