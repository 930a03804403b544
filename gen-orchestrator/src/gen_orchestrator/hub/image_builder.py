"""Releases that run in containers: the image is built from the project's Dockerfile, or exists already; its manifest is
read from it.

    source -> context (with the gen-worker that runs here, if the project names none) -> docker, podman or buildah -> check -> label
           -> the release's source is `REPOSITORY@DIGEST`

None of the project's code runs outside of a container. Images that the platform builds have names below
`cozy.local/OWNER/`, with a digest of their context as tag: the same source gives the same image, and so the same
release. They belong to their owner: nobody else can publish one.
"""

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path

from gen_orchestrator.child_environment import ChildEnvironment
from gen_orchestrator.hub.builders import BuildFailedError, Built, Order
from gen_orchestrator.hub.environments import EnvironmentFailedError, Say, build_environment, run
from gen_orchestrator.hub.folders import FolderError, digest_of, prune
from gen_worker.images.building import BuildError, check, label
from gen_worker.images.engines import BuildRequest, Engine, EngineError, Image, find_engine
from gen_worker.names import slugify
from gen_worker.project.build_contract import check_build, project_version
from gen_worker.project.cozy_toml import load_cozy_toml
from gen_worker.project.templates import render_dockerfile
from gen_worker.project.toml_files import read_toml
from gen_worker.project.wheel import write_wheel

OURS = "cozy.local"
END_S = 10.0  # time for an engine that is told to end to clean up
_PREFIXES = ("DOCKER_", "BUILDAH_", "BUILDKIT_", "CONTAINERS_", "CONTAINER_", "STORAGE_", "REGISTRY_", "XDG_", "SOURCE_DATE_EPOCH")
_REFERENCE = re.compile(r"[a-z0-9][\w.-]*(:\d+)?(/[\w.-]+)+(:[\w.-]{1,128})?(@sha256:[0-9a-f]{64})?")
_SOURCES_HEADER = re.compile(r"^\[tool\.uv\.sources\][ \t]*(#.*)?$", re.MULTILINE)


def reference_problem(reference: str) -> str:
    """Why this is not a reference of an image that can be published; `""` when it is one."""
    if len(reference) <= 500 and _REFERENCE.fullmatch(reference):
        return ""
    return f"image {reference[:200]!r}: expected REGISTRY/NAME[:TAG] or REGISTRY/NAME@sha256:HEX, such as registry.example/team/worker:1"


class ContainerBuilder:
    """Uses docker, podman or buildah. `engine`: its command with options, empty for the first that works here."""

    def __init__(self, engine: str, environment: ChildEnvironment) -> None:
        self._wanted = engine
        self._environment = environment
        self._engine: Engine | None = None

    async def build(self, order: Order, say: Say) -> Built:
        try:
            engine = self._engine
            if engine is None:
                engine = self._engine = await asyncio.to_thread(find_engine, self._wanted)
            made = await (self._take(engine, order, say) if order.image else self._make(engine, order, say))
        except (EngineError, EnvironmentFailedError, FolderError) as exc:
            raise BuildFailedError(str(exc)) from None
        except BuildError as exc:
            raise BuildFailedError("\n".join([*exc.output, str(exc)])) from None
        say(f"image {made.source}")
        return made

    async def _make(self, engine: Engine, order: Order, say: Say) -> Built:
        context = order.source
        name = await asyncio.to_thread(_prepare, context, order.owner, say)
        if not await asyncio.to_thread(_is_here, engine, name):
            request = BuildRequest(
                folder=context, dockerfile=context / "Dockerfile", name=name, layers=self._environment.get("BUILDAH_LAYERS", "true")
            )
            command = await asyncio.to_thread(engine.build_command, request)
            await run(command, say, context, env=engine_environment(self._environment), end_s=END_S)
        else:
            say("its image exists already")
        say("reading its functions from the image")
        built = await asyncio.to_thread(lambda: label(engine, check(engine, name), project_version(context)))
        return Built(built.manifest_json, pinned(built.image))

    async def _take(self, engine: Engine, order: Order, say: Say) -> Built:
        name = order.image
        problem = reference_problem(name)
        if not problem and name.startswith(f"{OURS}/") and not name.startswith(f"{OURS}/{slugify(order.owner)}/"):
            problem = f"no image {name}"
        if problem:
            raise BuildFailedError(problem)
        is_here = await asyncio.to_thread(_is_here, engine, name)
        if not (is_here and ("@sha256:" in name or name.startswith(f"{OURS}/"))):
            try:
                await run(engine.pull_command(name), say, Path("/"), env=engine_environment(self._environment), end_s=END_S)
            except EnvironmentFailedError:
                if not is_here:
                    raise
                say(f"{name} cannot be pulled; publishing the local one")
        say("reading its functions from the image")
        built = await asyncio.to_thread(check, engine, name)
        return Built(built.manifest_json, pinned(built.image))


def engine_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The environment variables of docker, podman and buildah: their settings, and how to reach registries."""
    return build_environment(env) | {name: value for name, value in env.items() if name.startswith(_PREFIXES)}


def pinned(image: Image) -> str:
    """The reference of exactly this image. If it has no digest (Docker's get one when they are pushed), its id, which
    is valid on this machine.
    """
    if not image.digest:
        return image.image_id
    repository = image.name.partition("@")[0]
    folder, slash, last = repository.rpartition("/")
    return f"{folder}{slash}{last.partition(':')[0]}@{image.digest}"


def _prepare(context: Path, owner: str, say: Say) -> str:
    """Turn the source into a build context; returns the name of its image. Blocking."""
    prune(context)
    dockerfile = context / "Dockerfile"
    if not dockerfile.exists() and (context / "cozy.toml").is_file():
        try:
            dockerfile.write_text(render_dockerfile(load_cozy_toml(context / "cozy.toml").name))
        except ValueError as exc:
            raise BuildFailedError(str(exc)) from None
        say("no Dockerfile: using the one that cozyctl init writes")
    _add_gen_worker(context, say)
    checked = check_build(context)
    for warning in checked.warnings:
        say(f"warning: {warning}")
    if not checked.ok:
        raise BuildFailedError("; ".join(checked.errors))
    return f"{OURS}/{slugify(owner)}/{slugify(load_cozy_toml(context / 'cozy.toml').name)}:{digest_of(context)[:16]}"


def _add_gen_worker(context: Path, say: Say) -> None:
    """Give a project that names no source of gen-worker the running one, because the public index has another package of that name."""
    path = context / "pyproject.toml"
    uv = read_toml(path).get("tool", {}).get("uv", {})
    sources = uv.get("sources", {}) if isinstance(uv, dict) else {}
    if not path.is_file() or (context / "uv.lock").exists() or "gen-worker" in sources:
        return
    text = path.read_text()
    if sources and not _SOURCES_HEADER.search(text):
        return  # written in another form: leave it to the project
    wheel = write_wheel(context)
    line = f'gen-worker = {{ path = "{wheel.name}" }}'
    if sources:
        text = _SOURCES_HEADER.sub(lambda found: f"{found[0]}\n{line}", text, count=1)
    else:
        text = f"{text.rstrip()}\n\n[tool.uv.sources]\n{line}\n"
    path.write_text(text)
    say(f"pyproject.toml names no source of gen-worker: the image gets the one of this platform, {wheel.name}")


def _is_here(engine: Engine, name: str) -> bool:
    try:
        engine.inspect(name)
    except EngineError:
        return False
    return True
