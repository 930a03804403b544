"""`cozyctl build`: builds the image of an endpoint folder, and checks it before and after."""

import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import click

from gen_worker.cli.folder import folder_option
from gen_worker.cli.output import EXIT_FAILED, EXIT_NOT_FOUND, EXIT_USAGE, Verb, fail, json_option, print_json, say
from gen_worker.images.building import BuildError, Built, build, push
from gen_worker.images.engines import BuildRequest, Engine, EngineError, find_engine
from gen_worker.images.steps import Step
from gen_worker.names import slugify
from gen_worker.project.build_contract import check_build, project_version
from gen_worker.project.cozy_toml import load_cozy_toml

_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(/v\d+)?")
LAYERS_SHOWN = 6


@click.command("build", cls=Verb)
@folder_option(positional=True)
@json_option
@click.option("-t", "--tag", "name", metavar="NAME[:TAG]", help="The image's name.  [default: the endpoint and the project's version]")
@click.option("-f", "--file", "dockerfile", type=click.Path(exists=True, dir_okay=False), help="Use another Dockerfile.")
@click.option("--engine", envvar="COZYCTL_ENGINE", default="", metavar="COMMAND", help="docker, podman or buildah, with its options.")
@click.option("--platform", default="", metavar="OS/ARCH", help="Build for another platform, such as linux/amd64.")
@click.option("--build-arg", "build_args", multiple=True, metavar="KEY=VALUE", help="Build argument of the Dockerfile. May be repeated.")
@click.option("--no-cache", is_flag=True, help="Build without cached layers.")
@click.option("--push", "pushed", is_flag=True, help="Push the image to the registry in its name.")
@click.option("--verbose", is_flag=True, help="Show all output of the build.")
def command(
    folder: str,
    as_json: bool,
    name: str | None,
    dockerfile: str | None,
    engine: str,
    platform: str,
    build_args: tuple[str, ...],
    no_cache: bool,
    pushed: bool,
    verbose: bool,
) -> int:
    """Build the worker image of an endpoint with docker, podman or buildah, whichever works here."""
    root = Path(folder)
    if problem := _bad_options(platform, build_args, name, pushed):
        return fail(problem, EXIT_USAGE, as_json=as_json, code="usage")
    file = Path(dockerfile) if dockerfile else root / "Dockerfile"
    checked = check_build(root, file)
    if not as_json:
        for warning in checked.warnings:
            say(f"warning: {warning}")
    if not checked.ok:
        return fail("; ".join(checked.errors), EXIT_FAILED, as_json=as_json, code="contract")
    version = project_version(root)
    request = BuildRequest(
        folder=root,
        dockerfile=file,
        name=name or f"{slugify(load_cozy_toml(root / 'cozy.toml').name)}:{_tag_of(version)}",
        platform=platform,
        build_args=build_args,
        no_cache=no_cache,
        epoch_s=os.environ.get("SOURCE_DATE_EPOCH", ""),
        layers=os.environ.get("BUILDAH_LAYERS", "true"),
    )
    began_s = time.monotonic()
    digest = ""
    try:
        found = find_engine(engine)
        if not as_json:
            say(f"building {request.name} with {' '.join(found.command)}")
        with LiveBuild(quiet=as_json, verbose=verbose) as live:
            built = build(found, request, version, live.step, live.line, live.stage)
            if pushed:
                live.stage(f"pushing {request.name}")
                digest = push(found, request.name, live.line)
    except EngineError as exc:
        return fail(str(exc), EXIT_NOT_FOUND, as_json=as_json, code="engine")
    except BuildError as exc:
        for line in () if as_json else exc.output:
            say(f"  {line}")
        return fail(_reason(exc), EXIT_FAILED, as_json=as_json, code="build", output=exc.output)
    _report(found, built, digest, time.monotonic() - began_s, pushed=pushed, as_json=as_json)
    return 0


class LiveBuild:
    """The progress of a build: one bar on a terminal, one line for each step elsewhere, nothing when quiet."""

    def __init__(self, *, quiet: bool, verbose: bool) -> None:
        self._quiet, self._verbose = quiet, verbose
        self._bar: Any = None
        self._task: Any = None
        self._step: Step | None = None
        self._began_s = 0.0

    def __enter__(self) -> Self:
        if not self._quiet and not self._verbose and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("starting", total=None)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._end_step()
        if self._bar is not None:
            self._bar.stop()

    def step(self, step: Step) -> None:
        """A step begins, or is updated."""
        if step is self._step:
            return
        self._end_step()
        self._step, self._began_s = step, time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, total=step.count, completed=step.number - 1, description=step.instruction[:100])

    def line(self, text: str) -> None:
        """A line of output."""
        if self._verbose and not self._quiet:
            say(text)
        elif self._bar is not None and text.strip() and self._step is not None and self._step.instruction not in text:
            self._bar.update(self._task, description=f"{self._step.instruction[:40]}: {text.strip()[-70:]}")

    def stage(self, text: str) -> None:
        """What happens after the steps."""
        self._end_step()
        if self._bar is not None:
            self._bar.update(self._task, description=text)
        elif not self._quiet and not self._verbose:
            say(text)

    def _end_step(self) -> None:
        step, self._step = self._step, None
        if step is None or self._quiet or self._verbose:
            return
        took = "cached" if step.cached else f"{time.monotonic() - self._began_s:.1f} s"
        text = f"[{step.number}/{step.count}] {step.instruction[:100]} ({took})"
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            say(text)


def _report(engine: Engine, built: Built, pushed_digest: str, seconds: float, *, pushed: bool, as_json: bool) -> None:
    image = built.image
    digest = pushed_digest or image.digest
    next_command = _next(engine, image.name, digest, pushed=pushed)
    if as_json:
        print_json(
            {
                "ok": True,
                "image": image.name,
                "id": image.image_id,
                "digest": digest,
                "size_bytes": image.size_bytes,
                "layers": [{"size_bytes": layer.size_bytes, "instruction": layer.instruction} for layer in image.layers],
                "labels": image.labels,
                "endpoint": built.manifest.endpoint_name,
                "functions": built.functions,
                "manifest_digest": built.manifest_digest,
                "pushed": pushed,
                "seconds": round(seconds, 1),
                "next": next_command,
            }
        )
        return
    say(f"built {image.name} in {seconds:.0f} s: {size_text(image.size_bytes)} in {len(image.layers)} layers, uncompressed")
    largest = sorted(image.layers, key=lambda layer: -layer.size_bytes)[:LAYERS_SHOWN]
    for layer in (layer for layer in image.layers if layer in largest):
        say(f"  {size_text(layer.size_bytes):>9}  {layer.instruction[:110]}")
    say(f"functions  {', '.join(built.functions)} of {built.manifest.endpoint_name}")
    say(f"manifest   {built.manifest_digest}")
    say(f"image id   {image.image_id}")
    if digest:
        say(f"digest     {digest}{'' if pushed else ' (of this machine; a registry may compress otherwise)'}")
    say(f"next: {next_command}")


def _next(engine: Engine, name: str, digest: str, *, pushed: bool) -> str:
    if pushed:
        return f"run it elsewhere as {name.rpartition(':')[0] or name}@{digest}" if digest else f"run it elsewhere as {name}"
    program = " ".join(engine.command)
    if Path(engine.command[0]).name == "buildah":
        return f"{program} push {name} docker-daemon:{name}   # or cozyctl build --push -t REGISTRY/{name}"
    return (
        f'{program} run --rm -p 127.0.0.1:8081:8081 -v "$(pwd)/out:/outputs" {name} '
        "python -m gen_worker.testing.http_runner --listen 0.0.0.0:8081 --outputs /outputs"
    )


def size_text(size: int) -> str:
    """A size in bytes, as text for people."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


def _reason(exc: BuildError) -> str:
    said = [line.partition("error: ")[2] for line in exc.output if "error: " in line]
    return f"{exc}. {said[0]}" if said and said[0] not in str(exc) else str(exc)


def _bad_options(platform: str, build_args: Sequence[str], name: str | None, pushed: bool) -> str:
    if "," in platform:
        return f"--platform {platform!r} names several; build one after the other, each with its own tag"
    if platform and not _PLATFORM.fullmatch(platform):
        return f"--platform {platform!r} is not OS/ARCH, such as linux/amd64 or linux/arm64"
    for arg in build_args:
        if not re.match(r"[A-Za-z_]\w*=", arg):
            return f"--build-arg {arg!r} is not KEY=VALUE, such as UV_TORCH_BACKEND=cu126"
    if name is not None and not re.fullmatch(r"[\w.-]+(:\d+)?(/[\w.-]+)*(:[\w.-]{1,128})?", name):
        return f"--tag {name!r} is not an image name; expected such as registry.example/team/worker:1"
    if pushed and (name is None or "/" not in name):
        return "--push needs a name with a registry: --tag registry.example/team/worker:1"
    return ""


def _tag_of(version: str) -> str:
    return re.sub(r"[^\w.-]", "-", version)[:128] or "latest"
