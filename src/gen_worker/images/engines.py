"""Drives docker, podman and buildah by their command lines: build, read, label, push."""

import io
import json
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec

from gen_worker.scratch import scratch_folder

QUICK_TIMEOUT_S = 60.0
ENGINES = ("docker", "podman", "buildah")


class EngineError(Exception):
    """An engine is missing, or refused a command; the message says what to do."""


class Layer(msgspec.Struct, frozen=True):
    """`size_bytes`: uncompressed, as stored on this machine; `instruction`: the one that made the layer."""

    size_bytes: int
    instruction: str


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """An engine's description of an image; layers from the base upwards. `digest` is empty when the engine computes it
    only on pushing.
    """

    name: str
    image_id: str
    digest: str
    entrypoint: tuple[str, ...]
    labels: dict[str, str]
    layers: tuple[Layer, ...]

    @property
    def size_bytes(self) -> int:
        return sum(layer.size_bytes for layer in self.layers)


class BuildRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to build. `platform`: for example linux/amd64; empty means this machine's. `epoch_s`: the timestamp of files
    and layers, in seconds as text; empty means now (https://reproducible-builds.org/specs/source-date-epoch/).
    `layers`: whether buildah caches layers, true or false.
    """

    folder: Path
    dockerfile: Path
    name: str
    platform: str = ""
    build_args: tuple[str, ...] = ()
    no_cache: bool = False
    epoch_s: str = ""
    layers: str = "true"


class Engine(Protocol):
    """Builds images. Methods raise `EngineError`. Methods that return commands leave running and watching them to the caller."""

    @property
    def command(self) -> tuple[str, ...]: ...

    def build_command(self, request: BuildRequest) -> list[str]: ...

    def push_command(self, name: str, digest_file: Path) -> list[str]: ...

    def pull_command(self, name: str) -> list[str]: ...

    def inspect(self, name: str) -> Image: ...

    def read_file(self, name: str, path: str) -> bytes: ...

    def label(self, name: str, labels: Mapping[str, str]) -> None: ...

    def names(self, name: str) -> tuple[str, ...]:
        """All tagged names of this image; `EngineError` when it is not on this machine."""
        ...

    def remove(self, name: str) -> None:
        """Remove a name from its image. Removing the last name deletes the image, with the layers that no other image uses."""
        ...


class Docker:
    """Docker, and podman, which accepts the same options for most things."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = tuple(command)
        self._is_podman = Path(command[0]).name == "podman"

    def build_command(self, request: BuildRequest) -> list[str]:
        if self._is_podman:
            return [*self.command, "build", *_fixed_times(request), *_build_options(request)]
        plain = ["--progress=plain"] if self._has_buildkit() else []
        return [*self.command, "build", *plain, *_build_options(request)]

    def push_command(self, name: str, digest_file: Path) -> list[str]:
        return [*self.command, "push", *(["--digestfile", str(digest_file)] if self._is_podman else []), name]

    def pull_command(self, name: str) -> list[str]:
        return [*self.command, "pull", name]

    def inspect(self, name: str) -> Image:
        found = json.loads(_ask(self.command, "image", "inspect", name))[0]
        repository_digests = found.get("RepoDigests") or []
        digest = found.get("Digest") or next((item.partition("@")[2] for item in repository_digests if "@" in item), "")
        if self._is_podman:
            history = [(entry["size"], entry["CreatedBy"]) for entry in json.loads(_ask(self.command, "history", "--format", "json", name))]
        else:
            lines = _ask(self.command, "history", "--no-trunc", "--human=false", "--format", "{{json .}}", name).splitlines()
            history = [(int(entry["Size"]), entry["CreatedBy"]) for entry in map(json.loads, lines)]
        layers = tuple(Layer(size, instruction_of(text)) for size, text in reversed(history) if size)
        return _image(name, found["Id"], digest, found.get("Config") or {}, layers)

    def read_file(self, name: str, path: str) -> bytes:
        container = _ask(self.command, "create", name, "true").strip()
        try:
            packed = _run((*self.command, "cp", f"{container}:{path}", "-")).stdout
        finally:
            _run((*self.command, "rm", container))
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            member = archive.extractfile(archive.next() or tarfile.TarInfo())
            return member.read() if member is not None else b""

    def label(self, name: str, labels: Mapping[str, str]) -> None:
        with _labels_only(name, labels) as folder:
            _ask(self.command, "build", *(["--pull=never"] if self._is_podman else []), "-t", name, str(folder))

    def names(self, name: str) -> tuple[str, ...]:
        found = json.loads(_ask(self.command, "image", "inspect", name))[0]
        return tuple(found.get("RepoTags") or ())

    def remove(self, name: str) -> None:
        _ask(self.command, "rmi", name)

    def _has_buildkit(self) -> bool:
        return _try((*self.command, "buildx", "version")).returncode == 0


class Buildah:
    """buildah: builds, reads and pushes images without a service and without starting a container of the image."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = tuple(command)

    def build_command(self, request: BuildRequest) -> list[str]:
        return [
            *self.command,
            "build",
            "--force-rm",
            f"--layers={request.layers}",
            *_fixed_times(request),
            *_build_options(request),
        ]

    def push_command(self, name: str, digest_file: Path) -> list[str]:
        return [*self.command, "push", "--digestfile", str(digest_file), name]

    def pull_command(self, name: str) -> list[str]:
        return [*self.command, "pull", name]

    def inspect(self, name: str) -> Image:
        found = json.loads(_ask(self.command, "inspect", "--type", "image", name))
        sizes = [layer["size"] for layer in json.loads(found["Manifest"])["layers"]]
        made = [entry.get("created_by", "") for entry in found["OCIv1"].get("history", []) if not entry.get("empty_layer")]
        made = [""] * (len(sizes) - len(made)) + made
        layers = tuple(Layer(size, instruction_of(text)) for size, text in zip(sizes, made, strict=False))
        return _image(name, found["FromImageID"], found["FromImageDigest"], found["OCIv1"].get("config") or {}, layers)

    def read_file(self, name: str, path: str) -> bytes:
        with scratch_folder("image") as work:
            (work / "Dockerfile").write_text(f"FROM scratch\nCOPY --from={name} {path} /file\n")
            _ask(self.command, "build", "--pull-never", "--output", f"type=local,dest={work}/out", str(work))
            return (work / "out/file").read_bytes()

    def label(self, name: str, labels: Mapping[str, str]) -> None:
        with _labels_only(name, labels) as folder:
            _ask(self.command, "build", "--layers", "--pull-never", "-t", name, str(folder))

    def names(self, name: str) -> tuple[str, ...]:
        image_id = self.inspect(name).image_id.removeprefix("sha256:")
        found = json.loads(_ask(self.command, "images", "--no-trunc", "--json"))
        return tuple(text for image in found if image["id"].removeprefix("sha256:") == image_id for text in image.get("names") or ())

    def remove(self, name: str) -> None:
        _ask(self.command, "rmi", name)


def find_engine(wanted: str = "", which: Callable[[str], str | None] = shutil.which) -> Engine:
    """The engine with this name or command line, or the first one that works; `EngineError` says what is wrong with
    each.

    `wanted` may contain options, such as `buildah --storage-driver vfs`.
    """
    if wanted:
        command = shlex.split(wanted)
        if which(command[0]) is None:
            raise EngineError(f"{command[0]!r} is not installed, or not on PATH; known engines: {', '.join(ENGINES)}")
        if Path(command[0]).name == "docker" and (why := _asleep(command)):
            raise EngineError(f"{wanted} does not work here: {why}")
        return Buildah(command) if Path(command[0]).name == "buildah" else Docker(command)
    problems = []
    for name in ENGINES:
        if which(name) is None:
            continue
        if name == "docker" and (why := _asleep([name])):
            problems.append(f"docker is installed, but its engine does not answer ({why})")
            continue
        return Buildah([name]) if name == "buildah" else Docker([name])
    found = "; ".join(problems) or "none of docker, podman and buildah is installed"
    raise EngineError(f"{found}. Start Docker, or install one that needs no service: apt install podman (or buildah)")


def instruction_of(created_by: str) -> str:
    """The Dockerfile's instruction in a history entry."""
    text = created_by.removeprefix("/bin/sh -c ").partition(" # buildkit")[0].strip()
    text = text.removeprefix("#(nop)").strip()
    if text.startswith("|"):  # build arguments come before a RUN's command: |2 A=1 B=2 /bin/sh -c ...
        text = text.partition("/bin/sh -c ")[2] or text
    known = text.partition(" ")[0] in ("RUN", "COPY", "ADD", "WORKDIR", "FROM", "CMD", "ENTRYPOINT", "ENV", "LABEL", "ARG", "USER")
    return " ".join(text.split()) if known or not text else f"RUN {' '.join(text.split())}"


def _asleep(command: Sequence[str]) -> str:
    """Why an engine that runs as a service does not work; `""` if it does."""
    try:
        found = _try((*command, "info", "--format", "{{.ServerVersion}}"), QUICK_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return f"no answer within {QUICK_TIMEOUT_S:.0f} s"
    if found.returncode == 0 and found.stdout.strip():
        return ""
    return (found.stderr.decode(errors="replace").strip().splitlines() or ["no version"])[-1]


def _build_options(request: BuildRequest) -> list[str]:
    options = ["-t", request.name, "-f", str(request.dockerfile)]
    if request.platform:
        options += ["--platform", request.platform]
    if request.no_cache:
        options.append("--no-cache")
    return [*options, *(part for arg in request.build_args for part in ("--build-arg", arg)), str(request.folder)]


def _fixed_times(request: BuildRequest) -> list[str]:
    """Options for fixed timestamps. BuildKit reads SOURCE_DATE_EPOCH by itself."""
    return ["--timestamp", request.epoch_s] if request.epoch_s else []


@contextmanager
def _labels_only(name: str, labels: Mapping[str, str]) -> Iterator[Path]:
    """A build that adds labels to an image, and no layers."""
    with scratch_folder("image") as work:
        pairs = " ".join(f"{key}={json.dumps(value)}" for key, value in labels.items())
        (work / "Dockerfile").write_text(f"FROM {name}\nLABEL {pairs}\n")
        yield work


def _image(name: str, image_id: str, digest: str, config: Mapping[str, Any], layers: tuple[Layer, ...]) -> Image:
    return Image(
        name=name,
        image_id=image_id if image_id.startswith("sha256:") else f"sha256:{image_id}",
        digest=digest,
        entrypoint=tuple(config.get("Entrypoint") or ()),
        labels=dict(config.get("Labels") or {}),
        layers=layers,
    )


def _ask(command: Sequence[str], *arguments: str) -> str:
    return _run((*command, *arguments)).stdout.decode()


def _run(command: Sequence[str]) -> "subprocess.CompletedProcess[bytes]":
    done = _try(command)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines()
        raise EngineError(f"{shlex.join(command)} failed: {' / '.join(reason[-3:]) or f'exit status {done.returncode}'}")
    return done


def _try(command: Sequence[str], timeout_s: float | None = None) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(command, capture_output=True, check=False, timeout=timeout_s)  # noqa: S603 - an engine that the user chose
