"""What a leadership needs to know at its start."""

from pathlib import Path

import msgspec

from gen_orchestrator.child_environment import ChildEnvironment
from gen_orchestrator.domain.receipts import Prices
from gen_orchestrator.hub.retention import RetentionSettings
from gen_worker.http.hosts import HostPolicy
from gen_worker.settings import ModelSettings


class TermSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`data` contains keys and files; nodes of one store share it. `owner` is the owner of published releases.
    `http_url` is how workers reach the API; `scheduler_addrs` are where they connect, this node's address first.
    `owns_workers`: workers of an earlier process of this node are known to be gone. `builder` makes releases when a
    publish names none; `engine` is the command that builds images. `allow_private_webhooks`: webhooks may go to
    addresses of this machine and network. `gpus`: devices of this machine, by their names for CUDA_VISIBLE_DEVICES.
    `mirror`: whose Hugging Face account fetches the models that workers request; None: they fetch them themselves.
    `environment`: what child processes are given parts of.
    """

    data: Path
    owner: str
    http_url: str
    scheduler_addrs: tuple[str, ...]
    hosts: HostPolicy
    owns_workers: bool
    drain_s: float
    builder: str
    engine: str
    asks_for_keys: bool
    allow_private_webhooks: bool
    gpus: tuple[str, ...]
    retention: RetentionSettings
    prices: Prices | None
    mirror: ModelSettings | None
    environment: ChildEnvironment
