"""Command lines for docker, podman and buildah that run a worker's container. Pure.

Every user of a machine can read command lines, so they contain no values of variables. Docker and podman take the values from the client's
environment; buildah's containers get them on stdin.
"""

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from gen_orchestrator.fleet.base import WorkerSpec
from gen_orchestrator.fleet.processes import OURS, worker_variables
from gen_worker.project.dockerfile import ENTRYPOINT

CACHE = "/var/cache/gen-worker"  # path inside the container
_BY_STDIN = "import json, os, sys; os.environ.update(json.load(sys.stdin)); os.execvp(sys.argv[1], sys.argv[1:])"
_PREFIXES = ("WORKER_", "TENSORHUB_", "COZY_", "HF_", "TORCH_", "TRANSFORMERS_", "DIFFUSERS_", "TOKENIZERS_", "OMP_", "MKL_")


class Commands(Protocol):
    """The commands of one engine; `name` is a container's. `by_stdin`: the program started by `run` reads its variables
    from stdin, as JSON.
    """

    by_stdin: bool

    def create(self, name: str, image: str) -> list[str]:
        """The command needed before `run`; empty for none."""
        ...

    def run(self, name: str, spec: WorkerSpec, variables: Iterable[str], cache: Path) -> list[str]:
        """Run the worker in the foreground."""
        ...

    def kill(self, name: str) -> list[str]:
        """Kill a container at once; empty when ending `run` does that."""
        ...

    def remove(self, name: str) -> list[str]: ...

    def names(self) -> list[str]:
        """Print the names of all containers."""
        ...


def commands_of(engine: Sequence[str]) -> Commands:
    """The commands of an engine, chosen by its command line."""
    return BuildahCommands(engine) if Path(engine[0]).name == "buildah" else DockerCommands(engine)


class DockerCommands:
    """Docker, and podman."""

    by_stdin = False

    def __init__(self, engine: Sequence[str]) -> None:
        self._engine = list(engine)
        self._is_podman = Path(engine[0]).name == "podman"

    def create(self, name: str, image: str) -> list[str]:
        return []

    def run(self, name: str, spec: WorkerSpec, variables: Iterable[str], cache: Path) -> list[str]:
        network = ["--network", "host"] if is_loopback(spec.scheduler_addr) else []
        gpus = (["--device", f"nvidia.com/gpu={spec.gpu}"] if self._is_podman else ["--gpus", f"device={spec.gpu}"]) if spec.gpu else []
        named = [part for variable in variables for part in ("--env", variable)]
        options = ["--rm", "--name", name, "--security-opt", "no-new-privileges", *network, *gpus, *named]
        return [*self._engine, "run", *options, "--volume", f"{cache}:{CACHE}", spec.image]

    def kill(self, name: str) -> list[str]:
        return [*self._engine, "kill", name]

    def remove(self, name: str) -> list[str]:
        return [*self._engine, "rm", "--force", name]

    def names(self) -> list[str]:
        return [*self._engine, "ps", "--all", "--format", "{{.Names}}"]


class BuildahCommands:
    """buildah, which has no service: its containers share this machine's network, and get no GPU. They are killed by
    their mark (`leftovers`).
    """

    by_stdin = True

    def __init__(self, engine: Sequence[str]) -> None:
        self._engine = list(engine)

    def create(self, name: str, image: str) -> list[str]:
        return [*self._engine, "from", "--pull-never", "--name", name, image]

    def run(self, name: str, spec: WorkerSpec, variables: Iterable[str], cache: Path) -> list[str]:
        volume = f"{cache}:{CACHE}"
        return [*self._engine, "run", "--network", "host", "--volume", volume, name, "--", "python", "-c", _BY_STDIN, *ENTRYPOINT]

    def kill(self, name: str) -> list[str]:
        return []

    def remove(self, name: str) -> list[str]:
        return [*self._engine, "rm", name]

    def names(self) -> list[str]:
        return [*self._engine, "containers", "--format", "{{.ContainerName}}"]


def container_environment(spec: WorkerSpec, env: Mapping[str, str]) -> dict[str, str]:
    """The part of `env` that a worker in a container sees, besides its own variables. Paths of this machine mean nothing there."""
    kept = {name: value for name, value in env.items() if name not in OURS and name.startswith(_PREFIXES) and not value.startswith("/")}
    places = {"TENSORHUB_CACHE_DIR": f"{CACHE}/tensorhub", "HF_HOME": f"{CACHE}/huggingface"}
    return kept | places | spec.env | worker_variables(spec)


def is_loopback(addresses: str) -> bool:
    """Whether any of these addresses (host:port, separated by commas) is reachable only on this machine."""
    return any(_is_loopback(address.rpartition(":")[0].strip("[]")) for address in addresses.split(","))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
