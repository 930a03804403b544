"""`python -m gen_worker.testing.http_runner`: serves a project's functions over HTTP. The same as `cozyctl dev`."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from gen_worker.contract.manifest import BAKED_MANIFEST
from gen_worker.dev.server import DEFAULT_LISTEN, ServeOptions, serve
from gen_worker.leaving import interrupted_once


def main(argv: Sequence[str] | None = None, env: Mapping[str, str] = os.environ) -> int:
    """Parse the flags, then serve; each flag has an environment variable."""
    parser = argparse.ArgumentParser(
        prog="python -m gen_worker.testing.http_runner", description="Serve functions over HTTP, for local testing."
    )
    parser.add_argument("--listen", default=env.get("GEN_WORKER_HTTP_LISTEN") or DEFAULT_LISTEN, metavar="HOST:PORT")
    parser.add_argument(
        "--manifest", default=env.get("GEN_WORKER_MANIFEST_PATH"), help=f"baked manifest; default: {BAKED_MANIFEST}, else the project here"
    )
    parser.add_argument(
        "--endpoint-root", default=env.get("GEN_WORKER_ENDPOINT_ROOT"), help="folder of the code; it and its src/ go on sys.path"
    )
    parser.add_argument("--outputs", default=env.get("GEN_WORKER_OUTPUT_DIR") or "/outputs", help="folder for saved files")
    parser.add_argument("--model", action="append", default=[], metavar="KEY=FOLDER", help="use a local folder for a model key")
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME", help="another name of this server")
    args = parser.parse_args(argv)
    manifest = Path(args.manifest) if args.manifest else BAKED_MANIFEST if BAKED_MANIFEST.is_file() else None
    root = Path(args.endpoint_root) if args.endpoint_root else Path("/app") if manifest == BAKED_MANIFEST else Path.cwd()
    options = ServeOptions(
        listen=args.listen,
        root=root,
        manifest=manifest,
        outputs=Path(args.outputs),
        models=tuple(args.model),
        allow_hosts=tuple(args.allow_host),
    )
    try:
        with interrupted_once() as interruption:
            return serve(options, env)
    except KeyboardInterrupt:  # while it read the project
        print("interrupted", file=sys.stderr)
        return interruption.status


if __name__ == "__main__":
    sys.exit(main())
