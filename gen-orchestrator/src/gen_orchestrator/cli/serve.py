"""`gen-orchestrator serve`: a node of the control plane, one or several on one store."""

import os
import sys
from pathlib import Path
from typing import Annotated

import click
import msgspec

from gen_orchestrator import tracing
from gen_orchestrator.child_environment import ChildEnvironment
from gen_orchestrator.cli.kept import kept, mirror_of
from gen_orchestrator.cli.up import DEFAULT_LISTEN, absolute_model, blobs_option, builder_options, mirror_option, needs_keys
from gen_orchestrator.platform_up import OWNER, Platform, PlatformSettings
from gen_orchestrator.store.base import StoreError
from gen_worker import event_loop
from gen_worker.http.listening import ListenError, listening_socket
from gen_worker.log import Log
from gen_worker.log_pipe import guard_standard_streams
from gen_worker.settings import is_true
from gen_worker.settings.reading import Flag, Range, SettingError, Url, read_settings, split_list


class ServeSettings(msgspec.Struct, frozen=True, kw_only=True, rename="upper"):
    """Settings from the environment; options override them."""

    gen_orchestrator_store: str = ""
    gen_orchestrator_data: str = ""
    gen_orchestrator_listen: str = DEFAULT_LISTEN
    gen_orchestrator_worker_listen: str = "127.0.0.1:8081"
    gen_orchestrator_advertise: str = ""
    gen_orchestrator_public_url: Url = ""
    gen_orchestrator_peers: str = ""
    gen_orchestrator_owner: str = OWNER
    gen_orchestrator_keys: Flag = ""
    gen_orchestrator_drain_s: Annotated[float, Range(0, 3600, "seconds")] = 120.0


@click.command("serve")
@click.argument("folders", nargs=-1, metavar="[FOLDER ...]", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--store", metavar="URL", help="postgresql://USER@HOST/DATABASE. Default: SQLite in the data folder, for one node.")
@click.option("--data", metavar="DIR", help="Folder for keys, files and copies of releases. Nodes of one store share it.")
@click.option("--listen", metavar="HOST:PORT", help="Where the HTTP API listens. Default: 127.0.0.1:8080")
@click.option("--worker-listen", metavar="HOST:PORT", help="Where workers connect. Default: 127.0.0.1:8081")
@click.option("--advertise", metavar="HOST", help="Host by which workers and other nodes reach this one. Default: the host it listens on.")
@click.option("--public-url", metavar="URL", help="Address in front of all nodes; workers save files there. Default: this node's.")
@click.option("--peer", "peers", multiple=True, metavar="HOST:PORT", help="Worker address of another node. May be repeated.")
@click.option("--owner", metavar="NAME", help=f"Owner of the folders' releases. Default: {OWNER}")
@click.option("--follow", is_flag=True, help="Move the tag prod with each edit of a folder, too.")
@click.option("--model", "models", multiple=True, metavar="KEY=FOLDER", help="Use a local folder for a model key. May be repeated.")
@click.option("--allow-host", "hosts", multiple=True, metavar="NAME", help="Another name of this server. May be repeated.")
@click.option("--allow-private-webhooks", is_flag=True, help="Allow webhooks to addresses of this machine and private network.")
@blobs_option
@mirror_option
@builder_options
@click.option("--keys", "asks_for_keys", is_flag=True, help="Require keys on loopback, too. On other addresses they are always required.")
@click.option("--insecure-i-know", is_flag=True, help="Listen beyond this machine without requiring keys.")
def command(
    folders: tuple[Path, ...],
    store: str | None,
    data: str | None,
    listen: str | None,
    worker_listen: str | None,
    advertise: str | None,
    public_url: str | None,
    peers: tuple[str, ...],
    owner: str | None,
    follow: bool,
    models: tuple[str, ...],
    hosts: tuple[str, ...],
    allow_private_webhooks: bool,
    blobs: str,
    mirror: bool,
    builder: str,
    engine: str,
    asks_for_keys: bool,
    insecure_i_know: bool,
) -> None:
    """Serve as one node of the control plane. Of several nodes on one PostgreSQL, one leads and the others stand by.

    Options can be set by environment variables, too: GEN_ORCHESTRATOR_STORE, GEN_ORCHESTRATOR_LISTEN and so on.
    """
    try:
        env = read_settings(ServeSettings, os.environ)
    except SettingError as exc:
        raise click.UsageError(str(exc)) from None
    where = data or env.gen_orchestrator_data
    if not where:
        raise click.UsageError("--data DIR (or GEN_ORCHESTRATOR_DATA) is missing: a folder for keys, files and copies of releases")
    http, workers = listen or env.gen_orchestrator_listen, worker_listen or env.gen_orchestrator_worker_listen
    reached = advertise or env.gen_orchestrator_advertise
    for address, option in ((http, "--listen"), (workers, "--worker-listen")):
        host, colon, _ = address.rpartition(":")
        host = host.strip("[]")
        if not colon:
            raise click.UsageError(f"{option} {address}: expected HOST:PORT, such as {DEFAULT_LISTEN}")
        if host in ("0.0.0.0", "::", "") and not reached:  # noqa: S104 - refused here
            raise click.UsageError(f"{option} {address}: other machines cannot connect to this address; add --advertise HOST")
    for folder in folders:
        if not (folder / "cozy.toml").is_file():
            raise click.UsageError(f"no cozy.toml in {folder}; start a project with: cozyctl init {folder.name}")
    name = store or env.gen_orchestrator_store
    settings = PlatformSettings(
        environment=ChildEnvironment(os.environ),
        folders=tuple(folder.resolve() for folder in folders),
        data=Path(where).expanduser().resolve(),
        owner=owner or env.gen_orchestrator_owner,
        store=name if "://" in name or not name else str(Path(name).expanduser().resolve()),
        worker_listen=workers,
        advertise=reached,
        public_url=public_url or env.gen_orchestrator_public_url,
        peers=peers or split_list(env.gen_orchestrator_peers),
        follow=follow,
        models=tuple(absolute_model(text) for text in models),
        allowed_hosts=hosts,
        asks_for_keys=asks_for_keys or is_true(env.gen_orchestrator_keys) or needs_keys(http, insecure_i_know=insecure_i_know),
        allow_private_webhooks=allow_private_webhooks,
        stands_by=True,
        builder=builder,
        engine=engine,
        drain_s=env.gen_orchestrator_drain_s,
        retention=kept(blobs),
        mirror=mirror_of(mirror),
    )
    sys.exit(_serve(settings, http))


def _serve(settings: PlatformSettings, listen: str) -> int:
    guard_standard_streams(Log(as_json=True).lost_line)
    try:
        with listening_socket(listen, DEFAULT_LISTEN) as sock:
            if why := tracing.set_up(os.environ):
                _say(f"warning: {why}")
            platform = Platform(settings, Log(sys.stderr, as_json=True), _say)
            return event_loop.run(platform.run(sock, _ready))
    except (ListenError, StoreError, OSError, ValueError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1


def _say(text: str) -> None:
    print(msgspec.json.encode({"event": "message", "text": text}).decode(), flush=True)


def _ready(platform: Platform, url: str) -> None:
    body = {"event": "ready", "url": url, "workers": platform.node.worker_address}
    print(msgspec.json.encode(body).decode(), flush=True)
