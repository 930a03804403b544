"""The reader of uploaded sources, with malicious archives."""

import gzip
import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gen_orchestrator.hub.archives import LIMITS, ArchiveError, Limits, unpack


def archive(*members: tuple[str, bytes] | tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return gzip.compress(made.getvalue())


def entry(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def read(data: bytes, into: Path, limits: Limits = LIMITS) -> int:
    into.mkdir(exist_ok=True)
    return unpack(io.BytesIO(data), len(data), into, limits)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_what_is_packed_comes_out(tmp_path: Path, form: int) -> None:
    long_name = "a/" * 9 + "b" * 90 + ".py"
    files = [("cozy.toml", b"x"), ("src/a.py", b"y" * 5000), (long_name, b"z"), ("empty", b"")]
    assert read(archive(entry("./", tarfile.DIRTYPE), entry("src", tarfile.DIRTYPE), *files, form=form), tmp_path / "out") == 4
    assert {str(p.relative_to(tmp_path / "out")): p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()} == dict(files)


def test_who_may_execute(tmp_path: Path) -> None:
    run = entry("run.sh", tarfile.REGTYPE)
    run.mode = 0o6777
    read(archive(run, ("plain", b"")), tmp_path / "out")
    assert [(tmp_path / "out" / name).stat().st_mode & 0o7777 for name in ("run.sh", "plain")] == [0o755, 0o644]


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([("../x", b"")], "leads out"),
        ([("a/../../x", b"")], "leads out"),
        ([("/etc/x", b"")], "absolute"),
        ([("a\\..\\x", b"")], "not a valid file name"),
        ([entry("x", tarfile.SYMTYPE, "/etc")], "symbolic link"),
        ([("a", b""), entry("x", tarfile.LNKTYPE, "a")], "hard link"),
        ([entry("x", tarfile.CHRTYPE)], "device"),
        ([entry("x", tarfile.BLKTYPE)], "device"),
        ([entry("x", tarfile.FIFOTYPE)], "pipe"),
        ([entry("x", tarfile.GNUTYPE_SPARSE)], "sparse"),
        ([entry("x", b"Z")], "unknown kind"),
        ([("x", b"1"), ("./x", b"2")], "twice"),
        ([("x", b"1"), ("x/y", b"2")], "a file and a folder"),
        ([("x/y", b"1"), ("x", b"2")], "a file and a folder"),
        ([("a/" * 41 + "x", b"")], "too deep"),
        ([("x" * 256, b"")], "too long"),
        ([("\udcff", b"")], "not a valid file name"),
        ([("a\x1b[2Jb", b"")], "not a valid file name"),
        ([("a\nb", b"")], "not a valid file name"),
    ],
)
def test_what_is_refused(tmp_path: Path, members: list[tuple[str, bytes] | tarfile.TarInfo], said: str) -> None:
    with pytest.raises(ArchiveError, match=said):
        read(archive(*members), tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


def test_bounds_hold_while_it_is_read(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="more than 3 entries"):
        read(archive(*((str(n), b"") for n in range(4))), tmp_path / "a", Limits(entries=3))
    with pytest.raises(ArchiveError, match="more than 100 bytes"):
        read(archive(("a", b"x" * 60), ("b", b"x" * 60)), tmp_path / "b", Limits(size_bytes=100))
    bomb = archive(("zeros", bytes(50 << 20)))
    assert len(bomb) < 100_000
    with pytest.raises(ArchiveError, match="100 times the archive"):
        read(bomb, tmp_path / "c")
    assert sum(p.stat().st_size for p in (tmp_path / "c").rglob("*")) == 0


def test_headers_of_any_size_are_not_read(tmp_path: Path) -> None:
    header = entry("x", tarfile.XHDTYPE)
    header.size = 1 << 40
    with pytest.raises(ArchiveError, match="extended header"):
        read(gzip.compress(header.tobuf() + bytes(2048)), tmp_path / "out")
    lying = entry("x", tarfile.XHDTYPE)
    body = b"13 size=9999\n"
    lying.size = len(body)
    with pytest.raises(ArchiveError, match="size"):
        read(gzip.compress(lying.tobuf() + body.ljust(512, b"\0") + bytes(1024)), tmp_path / "out2")


def test_what_was_cut_off(tmp_path: Path) -> None:
    whole = archive(("a", b"x" * 10_000))
    raw = gzip.decompress(whole)
    for number, data in enumerate(
        (whole[:60], gzip.compress(raw[:700]), gzip.compress(raw[:512]), b"", b"PK\x03\x04", gzip.compress(b"x" * 512))
    ):
        with pytest.raises(ArchiveError):
            read(data, tmp_path / str(number))


def test_what_follows_the_end_is_padding_alone(tmp_path: Path) -> None:
    whole = archive(("a", b"x" * 10_000))
    raw = gzip.decompress(whole)
    read(gzip.compress(raw + bytes(100_000)), tmp_path / "padded")
    for number, data in enumerate((whole + whole, gzip.compress(raw + b"x"), gzip.compress(raw + bytes(5 << 20)), whole[:-8], whole[:-1])):
        with pytest.raises(ArchiveError):
            read(data, tmp_path / str(number))
    flipped = bytearray(whole)
    flipped[-6] ^= 1  # of the checksum
    with pytest.raises(ArchiveError):
        read(bytes(flipped), tmp_path / "flipped")


@given(place=st.integers(0, 1 << 16), value=st.integers(0, 255))
def test_any_changed_byte_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, place: int, value: int) -> None:
    raw = bytearray(gzip.decompress(archive(("a/b", b"x" * 600), ("c" * 120, b"y"), form=tarfile.GNU_FORMAT)))
    raw[place % len(raw)] = value
    folder = tmp_path_factory.mktemp("changed")
    try:
        read(gzip.compress(bytes(raw)), folder / "out")
    except ArchiveError:
        pass
    assert sorted(p.name for p in folder.iterdir()) == ["out"]
