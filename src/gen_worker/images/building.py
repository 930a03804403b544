"""Builds an image, checks it against the contract, labels it, pushes it."""

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence

import msgspec

from gen_worker.contract.manifest import BAKED_MANIFEST, Manifest
from gen_worker.images.engines import BuildRequest, Engine, EngineError, Image
from gen_worker.images.steps import BuildLog, Step
from gen_worker.project.dockerfile import ENTRYPOINT, ENTRYPOINT_LINE
from gen_worker.scratch import scratch_folder

ENDPOINT_LABEL, VERSION_LABEL, MANIFEST_LABEL = "cozy.endpoint", "org.opencontainers.image.version", "cozy.manifest.digest"
OnStep = Callable[[Step], None]
OnLine = Callable[[str], None]
OnStage = Callable[[str], None]


class BuildError(Exception):
    """The build failed; `output` holds the last lines of the step that failed."""

    def __init__(self, message: str, output: Sequence[str] = ()) -> None:
        self.output = tuple(output)
        super().__init__(message)


class Built(msgspec.Struct, frozen=True):
    """An image that keeps the contract. `manifest_json` are the bytes of its manifest."""

    image: Image
    manifest: Manifest
    manifest_json: bytes

    @property
    def manifest_digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.manifest_json).hexdigest()}"

    @property
    def functions(self) -> tuple[str, ...]:
        return tuple(entry.name for entry in self.manifest.entries)


def build(engine: Engine, request: BuildRequest, version: str, on_step: OnStep, on_line: OnLine, on_stage: OnStage) -> Built:
    """Build, check and label. Blocks; `BuildError` says which step failed, or what the image lacks."""
    _watch(engine.build_command(request), on_step, on_line)
    on_stage(f"checking {request.name}")
    return label(engine, check(engine, request.name), version)


def check(engine: Engine, name: str) -> Built:
    """An image on this machine, with the manifest read from it. Blocks; `BuildError` says what it lacks."""
    image = engine.inspect(name)
    if image.entrypoint != ENTRYPOINT:
        raise BuildError(f"the image {name} starts {list(image.entrypoint)}; end the Dockerfile with: {ENTRYPOINT_LINE}")
    try:
        data = engine.read_file(name, str(BAKED_MANIFEST))
    except (EngineError, OSError) as exc:
        raise BuildError(f"the image {name} is not a worker: {BAKED_MANIFEST} cannot be read in it: {exc}") from None
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except msgspec.DecodeError as exc:
        raise BuildError(f"the image {name} is not a worker: its {BAKED_MANIFEST} is not a manifest: {exc}") from None
    if not manifest.modules:
        raise BuildError(f"the image {name} has a manifest without functions; mark one with @worker_function()")
    return Built(image, manifest, data)


def label(engine: Engine, built: Built, version: str) -> Built:
    """Label the image with what its manifest says; if it had no such labels, that makes a new image under the same name. Blocks."""
    name = built.image.name
    labels = {
        ENDPOINT_LABEL: built.manifest.endpoint_name,
        MANIFEST_LABEL: built.manifest_digest,
        **({VERSION_LABEL: version} if version else {}),
    }
    if all(built.image.labels.get(key) == value for key, value in labels.items()):
        return built
    engine.label(name, labels)
    return msgspec.structs.replace(built, image=engine.inspect(name))


def push(engine: Engine, name: str, on_line: OnLine) -> str:
    """Push an image to the registry in its name. Returns its digest there, `""` if the engine does not say."""
    with scratch_folder("push") as work:
        digest_file = work / "digest"
        log = _watch(engine.push_command(name, digest_file), lambda step: None, on_line)
        if digest_file.is_file():
            return digest_file.read_text().strip()
    said = [line.partition("digest: ")[2].partition(" ")[0] for line in log.tail if "digest: sha256:" in line]
    return said[-1] if said else ""


def _watch(command: Sequence[str], on_step: OnStep, on_line: OnLine) -> BuildLog:
    """Run a command to its end, reporting steps and lines. The child ends when we do."""
    log = BuildLog()
    began_s = time.monotonic()
    # A session of its own, so that Ctrl-C reaches it once, through us.
    child = subprocess.Popen(  # noqa: S603 - an engine that the user chose
        list(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True
    )
    try:
        assert child.stdout is not None
        for line in child.stdout:
            step = log.feed(line)
            if step is not None:
                on_step(step)
            on_line(line.rstrip())
        status = child.wait()
    except BaseException:
        os.killpg(child.pid, signal.SIGTERM)
        child.wait()
        raise
    if status:
        where = f"step {log.step.number} of {log.step.count} failed: {log.step.instruction[:80]}" if log.step else f"{command[0]} failed"
        raise BuildError(f"{where} (after {time.monotonic() - began_s:.0f} s, exit status {status})", log.tail)
    return log
