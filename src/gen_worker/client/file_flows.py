"""Files to and from a server: what is sent, where an interrupted download continues, what is checked.

    upload    PUT under a ref of its own; the SHA-256 in the answer must match what was sent
    download  GET; after a break it continues there, by `Range` and `If-Range`; a file that has changed starts over

A dev runner takes no uploads: there the file is part of the payload, as a data URI.
"""

import base64
import hashlib
import mimetypes
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import msgspec

from gen_worker.authoring.assets import Asset
from gen_worker.client.answers import refusal, unexpected
from gen_worker.client.effects import Answer, Close, Flow, Give, LostError, read
from gen_worker.client.errors import GatewayError
from gen_worker.client.flows import Flows, is_no_route
from gen_worker.client.tries import ask, open_stream
from gen_worker.client.values import RunFile
from gen_worker.contract.files import SHA256_HEADER, SavedFile
from gen_worker.names import whole_number

PIECE_BYTES = 256 << 10
MAX_INLINE_BYTES = 128 << 20  # for a data URI; a dev runner accepts bodies of 256 MiB
STALL_S = 60.0
DEFAULT_OWNER = "local"
Progress = Callable[[int, int], object]  # bytes done, bytes in all (0: unknown)
FileLike = Asset | RunFile | str

_me = msgspec.json.Decoder(dict[str, Any]).decode
_saved = msgspec.json.Decoder(SavedFile).decode
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


class Piece(msgspec.Struct, frozen=True):
    """Bytes of a download and their position. `offset` 0 starts it, or starts it over."""

    offset: int
    data: bytes
    total_bytes: int


class Body:
    """A file as the body of a request, read from the beginning each time it is sent."""

    def __init__(self, source: Path | bytes, progress: Progress | None) -> None:
        self._source = source
        self._progress = progress
        self.size_bytes = len(source) if isinstance(source, bytes) else source.stat().st_size
        self.sha256 = ""

    def __iter__(self) -> Iterator[bytes]:
        digest, done = hashlib.sha256(), 0
        for piece in self._pieces():
            digest.update(piece)
            done += len(piece)
            yield piece
            if self._progress is not None:
                self._progress(done, self.size_bytes)
        self.sha256 = digest.hexdigest()

    def _pieces(self) -> Iterator[bytes]:
        if isinstance(self._source, bytes):
            for start in range(0, len(self._source), PIECE_BYTES):
                yield self._source[start : start + PIECE_BYTES]
            return
        with self._source.open("rb") as file:
            left = self.size_bytes  # the announced size: a file that grows meanwhile must not break the connection
            while left and (piece := file.read(min(left, PIECE_BYTES))):
                left -= len(piece)
                yield piece
        if left:
            raise ValueError(f"{self._source.name!r} became shorter while it was being sent; send it again when no program writes to it")


def owner(flows: Flows) -> Flow[str]:
    """The owner whose files this client's key reads and writes; "" for a dev runner, which has no owners."""
    if flows.owner is None:
        answer = yield from ask(flows.request("GET", "/v1/me"), flows.patience)
        if is_no_route(answer):
            flows.owner = ""
        elif answer.status != 200:
            raise refusal(answer)
        else:
            try:
                found = str(_me(answer.body)["owner"])
            except (msgspec.DecodeError, KeyError):
                raise unexpected(answer, "whose key this is") from None
            flows.owner = DEFAULT_OWNER if found == "*" else found
    return flows.owner


def upload(flows: Flows, source: Path | bytes, name: str, ref: str, progress: Progress | None) -> Flow[Asset]:
    """Send a file; returns the value that refers to it in a payload."""
    whose = yield from owner(flows)
    body = Body(source, progress)
    kind = mimetypes.guess_type(ref or name)[0] or "application/octet-stream"
    if not whose:
        if body.size_bytes > MAX_INLINE_BYTES:
            raise ValueError(f"{name!r} has {body.size_bytes} bytes; a dev runner accepts files of at most {MAX_INLINE_BYTES}")
        data = b"".join(body)
        return Asset(f"data:{kind};base64,{base64.b64encode(data).decode()}", mime_type=kind, size_bytes=len(data), sha256=body.sha256)
    safe_name = name.strip().replace("\\", "_") or "file"  # the platform refuses what it would store under another ref
    ref = ref.lstrip("/") or f"uploads/{secrets.token_hex(8)}/{safe_name}"
    headers = {"content-type": "application/octet-stream", "content-length": str(body.size_bytes)}
    request = flows.request("PUT", f"/v1/files/{quote(whose, safe='')}/{quote(ref)}", headers, body, STALL_S)
    answer = yield from ask(request, flows.patience)
    if not 200 <= answer.status < 300:
        raise refusal(answer)
    try:
        kept = _saved(answer.body)
    except msgspec.DecodeError:
        raise unexpected(answer, "what was kept") from None
    if kept.sha256 and kept.sha256 != body.sha256:
        raise GatewayError(
            f"{name!r} arrived with other bytes than were sent (sha256 {kept.sha256})", code="corrupted", hint="send it again"
        )
    return Asset(kept.ref or ref, whose, mime_type=kept.mime_type or kind, size_bytes=body.size_bytes, sha256=body.sha256)


def download(flows: Flows, file: FileLike) -> Flow[None]:
    """Yield a file's `Piece`s."""
    path = yield from _path_of(flows, file)
    digest, done, etag = hashlib.sha256(), 0, ""
    tries = flows.patience.tries(following=True)
    while True:
        resumed = {"range": f"bytes={done}-", "if-range": etag} if done and etag else {}
        request = flows.request("GET", path, {"accept": "*/*", "accept-encoding": "identity", **resumed}, read_timeout_s=STALL_S)
        answer = yield from open_stream(request, flows.patience, following=bool(done))
        if not 200 <= answer.status < 300:
            raise refusal(answer)
        start, total_bytes = _range_of(answer)
        if start != done:
            if start:
                raise unexpected(answer, f"bytes from {done} on")
            digest, done = hashlib.sha256(), 0
        etag = answer.headers.get("etag", "")
        etag = "" if etag.startswith("W/") else etag
        try:
            if not done:
                yield Give(Piece(0, b"", total_bytes))
            while data := (yield from read()):
                tries.succeeded()
                digest.update(data)
                yield Give(Piece(done, data, total_bytes))
                done += len(data)
            if total_bytes and done < total_bytes:
                raise LostError(f"the file ended after {done} of {total_bytes} bytes", sent=True)
        except LostError as lost:
            yield Close()
            yield from tries.lost(lost)
            continue
        yield Close()
        wanted = answer.headers.get(SHA256_HEADER) or getattr(file, "sha256", None)
        if wanted and wanted != digest.hexdigest():
            raise GatewayError(f"{_name(file)!r} arrived with other bytes than are stored", code="corrupted", hint="ask for it again")
        return


def _path_of(flows: Flows, file: FileLike) -> Flow[str]:
    if isinstance(file, RunFile) and file.url.startswith("/v1/files/"):
        return file.url
    ref = file if isinstance(file, str) else file.ref
    if re.match(r"[a-z]+:", ref[:20]):
        raise ValueError(f"{ref[:60]!r} is not a file of this server: expected a ref such as 'uploads/x.png'")
    whose = yield from owner(flows)
    if whose and isinstance(file, Asset) and file.owner:
        whose = file.owner
    return f"/v1/files/{quote(whose, safe='')}/{quote(ref.lstrip('/'))}" if whose else f"/v1/files/{quote(ref.lstrip('/'))}"


def _range_of(answer: Answer) -> tuple[int, int]:
    """The position of an answer's bytes, and the size of the whole file (0: unknown)."""
    if answer.status != 206:
        return 0, whole_number(answer.headers.get("content-length", "")) or 0
    found = _RANGE.fullmatch(answer.headers.get("content-range", ""))
    if found is None:
        raise unexpected(answer, "a range of the file")
    return int(found[1]), int(found[2])


def _name(file: FileLike) -> str:
    return (file if isinstance(file, str) else file.ref)[:200]


class Target:
    """Where a download is written: memory, or a temporary file beside the target until it is complete, so that nobody
    reads half a file.
    """

    def __init__(self, path: Path | None, progress: Progress | None) -> None:
        self._path = path
        self._progress = progress
        self._part = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.part") if path is not None else None
        self._file: BinaryIO | None = self._part.open("xb") if self._part is not None else None
        self.data = bytearray()

    def take(self, piece: Piece) -> None:
        """Write a piece at its position."""
        if self._file is not None:
            if piece.offset == 0:
                self._file.seek(0)
                self._file.truncate()
            self._file.write(piece.data)
        else:
            if piece.offset == 0:
                self.data.clear()
            self.data += piece.data
        if self._progress is not None and piece.data:
            self._progress(piece.offset + len(piece.data), piece.total_bytes)

    def keep(self) -> None:
        """The download is complete: keep it."""
        if self._file is not None and self._part is not None and self._path is not None:
            self._file.close()
            self._part.replace(self._path)

    def drop(self) -> None:
        """Remove an incomplete download."""
        if self._file is not None and self._part is not None:
            self._file.close()
            self._part.unlink(missing_ok=True)


def source_of(source: str | Path | bytes, ref: str) -> tuple[Path | bytes, str]:
    """The content to send, and its name."""
    if isinstance(source, bytes):
        return source, ref.rpartition("/")[2] or "file"
    path = Path(source)
    return path, path.name


def target_of(file: FileLike, path: str | Path | None) -> Path:
    """Where a file is written; by default under its own name in the current folder."""
    return Path(path) if path is not None else Path(_name(file).rstrip("/").rpartition("/")[2] or "file")
