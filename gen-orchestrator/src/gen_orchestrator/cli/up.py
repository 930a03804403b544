"""`cozyctl up`: the whole platform on this machine.

The platform's modules are imported after the first line is on the screen: they are most of what this verb needs to start.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gen_orchestrator.cli.screen import Screen
from gen_worker.log import Log
from gen_worker.log_pipe import guard_standard_streams
from gen_worker.names import did_you_mean

if TYPE_CHECKING:
    from gen_orchestrator.platform_up import PlatformSettings

blobs_option = click.option(
    "--blobs",
    default="",
    metavar="URL",
    help="s3://BUCKET/PREFIX for files of callers and of runs, instead of the data folder. Also GEN_ORCHESTRATOR_BLOBS.",
)
mirror_option = click.option(
    "--mirror",
    is_flag=True,
    envvar="GEN_ORCHESTRATOR_MIRROR",
    help="Download models from Hugging Face once for all workers, with this environment's HF_TOKEN. Also GEN_ORCHESTRATOR_MIRROR=1.",
)
DEFAULT_LISTEN = "127.0.0.1:8080"
BUILDERS = ("process", "container")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def default_data() -> Path:
    """The default folder for the state, in the user's data folder."""
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "cozy" / "up"


def builder_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of `up` and `serve` that say how published sources become releases."""
    engine = click.option(
        "--engine", envvar="COZYCTL_ENGINE", default="", metavar="COMMAND", help="docker, podman or buildah, with its options."
    )
    text = "How a published folder becomes a release, unless the publish says so itself."
    return click.option("--builder", type=click.Choice(BUILDERS), default=BUILDERS[0], show_default=True, help=text)(engine(command))


@click.command("up", short_help="Start the platform on this machine.")
@click.argument("folders", nargs=-1, metavar="[FOLDER ...]")
@click.option("--listen", default=DEFAULT_LISTEN, show_default=True, metavar="HOST:PORT", help="Where the HTTP API listens.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder for all state. Default: ~/.local/share/cozy/up")
@click.option("--store", default="", metavar="URL", help="postgresql://USER@HOST/DATABASE instead of SQLite in the data folder.")
@click.option("--worker-listen", default="127.0.0.1:0", metavar="HOST:PORT", help="Where workers connect; port 0 takes a free one.")
@click.option("--follow", is_flag=True, help="Move the tag prod with each edit, too.")
@click.option("--model", "models", multiple=True, metavar="KEY=FOLDER", help="Use a local folder for a model key. May be repeated.")
@click.option("--allow-host", "hosts", multiple=True, metavar="NAME", help="Another name of this server. May be repeated.")
@click.option("--allow-private-webhooks", is_flag=True, help="Allow webhooks to addresses of this machine and private network.")
@blobs_option
@mirror_option
@click.option("--record", type=click.Path(path_type=Path), metavar="FILE", help="Write routing decisions and their inputs to FILE.")
@builder_options
@click.option("--keys", "asks_for_keys", is_flag=True, help="Require keys on loopback, too. On other addresses they are always required.")
@click.option("--insecure-i-know", is_flag=True, help="Listen beyond this machine without requiring keys.")
@click.option("--json", "as_json", is_flag=True, help="JSON lines instead of the live screen.")
def command(
    folders: tuple[str, ...],
    listen: str,
    data: Path | None,
    store: str,
    worker_listen: str,
    follow: bool,
    models: tuple[str, ...],
    hosts: tuple[str, ...],
    allow_private_webhooks: bool,
    blobs: str,
    mirror: bool,
    record: Path | None,
    builder: str,
    engine: str,
    asks_for_keys: bool,
    insecure_i_know: bool,
    as_json: bool,
) -> int:
    """Serve the projects in FOLDERs (default: here) as owner `local`, with durable runs, releases and tags."""
    paths = tuple(Path(folder).resolve() for folder in folders or (".",))
    for path in paths:
        if not (path / "cozy.toml").is_file():
            if path.is_file():
                raise click.UsageError(f"{path} is a file; expected the folder of a project")
            raise click.UsageError(f"no cozy.toml in {path}; start a project with: cozyctl init {path.name}")
    overrides = tuple(absolute_model(text) for text in models)
    if overrides:
        check_models(overrides, paths)
    place = (data or default_data()).expanduser().resolve()
    guard_standard_streams(Log(as_json=as_json).lost_line)
    with closing(Screen(as_json=as_json)) as screen:
        screen.step(f"starting; the state is in {place}")
        from gen_orchestrator.child_environment import ChildEnvironment
        from gen_orchestrator.cli.kept import kept, mirror_of
        from gen_orchestrator.platform_up import PlatformSettings

        settings = PlatformSettings(
            environment=ChildEnvironment(os.environ),
            folders=paths,
            data=place,
            store=store,
            worker_listen=worker_listen,
            follow=follow,
            models=overrides,
            allowed_hosts=hosts,
            asks_for_keys=asks_for_keys or needs_keys(listen, insecure_i_know=insecure_i_know),
            allow_private_webhooks=allow_private_webhooks,
            retention=kept(blobs),
            mirror=mirror_of(mirror),
            record=record.resolve() if record is not None else None,
            builder=builder,
            engine=engine,
        )
        return _serve(screen, settings, listen)


def _serve(screen: Screen, settings: "PlatformSettings", listen: str) -> int:
    from gen_orchestrator import tracing
    from gen_orchestrator.hub.prices import PricesError
    from gen_orchestrator.platform_up import Platform
    from gen_orchestrator.store.base import StoreError, StoreHeldError, StoreUnavailableError
    from gen_worker import event_loop
    from gen_worker.http.listening import ListenError, listening_socket

    try:
        sock = listening_socket(listen, DEFAULT_LISTEN)
        log = Log(screen.log_stream(settings.data), as_json=True)
        if why := tracing.set_up(os.environ):
            screen.say(f"warning: {why}")
        platform = Platform(settings, log, screen.say, screen.step)
        return event_loop.run(platform.run(sock, screen.ready))
    except StoreHeldError as exc:
        screen.say_failed(str(exc))
    except StoreUnavailableError as exc:
        screen.say_failed(f"{exc}\nstart the database, or correct --store; without --store the state is in SQLite")
    except (ListenError, StoreError, PricesError, OSError) as exc:
        screen.say_failed(str(exc))
    return 1


def absolute_model(text: str) -> str:
    key, equals, folder = text.partition("=")
    if not equals or not key or not folder:
        raise click.UsageError(f"--model {text!r}: expected KEY=FOLDER")
    return text if folder.startswith("pkg:") else f"{key}={Path(folder).expanduser().resolve()}"


def check_models(overrides: Sequence[str], folders: Sequence[Path]) -> None:
    """Usage error for an override that no folder uses, or whose folder does not exist."""
    from gen_worker.project.cozy_toml import load_cozy_toml

    declared: set[str] = set()
    for folder in folders:
        try:
            project = load_cozy_toml(folder / "cozy.toml")
        except ValueError:
            return  # reported when its release is made
        declared.update(project.models, *project.function_models.values())
    for text in overrides:
        key, _, place = text.partition("=")
        if key not in declared:
            known = ", ".join(sorted(declared)) or "none"
            raise click.UsageError(
                f"--model {text}: no cozy.toml here declares the model {key!r}.{did_you_mean(key, declared)} Keys: {known}"
            )
        if not place.startswith("pkg:") and not Path(place).exists():
            raise click.UsageError(f"--model {text}: nothing at {place}")


def needs_keys(listen: str, *, insecure_i_know: bool) -> bool:
    """Whether users of other machines can reach this address, so that callers must show keys."""
    return listen.rpartition(":")[0].strip("[]") not in LOOPBACK and not insecure_i_know
