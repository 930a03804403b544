"""`python -m gen_worker.testing.http_runner`: serve a project's functions over HTTP. The same as `cozyctl dev`."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from gen_worker.dev.server import BAKED_MANIFEST, DEFAULT_LISTEN, ServeOptions, serve


def main(argv: Sequence[str] | None = None, env: Mapping[str, str] = os.environ) -> int:
    """Parse the flags, then serve; each flag has an environment variable."""
    parser = argparse.ArgumentParser(
        prog="python -m gen_worker.testing.http_runner", description="Serve functions over HTTP, for local testing."
    )
    parser.add_argument("--listen", default=env.get("GEN_WORKER_HTTP_LISTEN") or DEFAULT_LISTEN, metavar="HOST:PORT")
    parser.add_argument(
        "--manifest", default=env.get("GEN_WORKER_MANIFEST_PATH"), help=f"baked manifest; default: the project here, else {BAKED_MANIFEST}"
    )
    parser.add_argument(
        "--endpoint-root", default=env.get("GEN_WORKER_ENDPOINT_ROOT"), help="folder of the code; it and its src/ go on sys.path"
    )
    parser.add_argument("--outputs", default=env.get("GEN_WORKER_OUTPUT_DIR") or "/outputs", help="folder for saved files")
    parser.add_argument("--model", action="append", default=[], metavar="KEY=FOLDER", help="use a local folder for a model key")
    args = parser.parse_args(argv)
    here = Path.cwd()
    root = Path(args.endpoint_root) if args.endpoint_root else here if (here / "cozy.toml").is_file() or args.manifest else Path("/app")
    options = ServeOptions(
        listen=args.listen,
        root=root,
        manifest=Path(args.manifest) if args.manifest else None,
        outputs=Path(args.outputs),
        models=tuple(args.model),
    )
    return serve(options, env)


if __name__ == "__main__":
    sys.exit(main())
