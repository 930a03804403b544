"""`python -m gen_worker.testing.mock_orchestrator`: a scheduler for one run. It listens, waits for a worker, sends the
run, and prints the result.

Exit status: 0 success, 1 the run failed or an argument is wrong, 2 no worker came in time, 3 no result came in time.
"""

import argparse
import asyncio
import json
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from gen_worker.leaving import INTERRUPTED
from gen_worker.testing.file_server import FileServer
from gen_worker.testing.loopback import LoopbackRun, LoopbackScheduler
from gen_worker.wire.messages import Registration, RunResult

MIN_SILENCE_S = 5.0
LOOK_S = 0.1


class ArgumentError(ValueError):
    """A flag has an unusable value."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(
        prog="python -m gen_worker.testing.mock_orchestrator",
        description="Wait for a worker, send it one run, print the result.",
    )
    found.add_argument("--listen", default="0.0.0.0:8080", metavar="HOST:PORT", help="where workers dial in")
    found.add_argument("--wait-s", type=float, default=30, help="seconds to wait for a worker, and of silence before giving up")
    found.add_argument("--run", required=True, metavar="FUNCTION")
    found.add_argument("--payload-json", default="{}", metavar="JSON")
    found.add_argument("--timeout-ms", type=int, default=0)
    found.add_argument("--owner", default="")
    found.add_argument("--invoker-id", default="")
    found.add_argument("--required-model", action="append", default=[], metavar="REF")
    found.add_argument(
        "--input-ref-url", action="append", default=[], metavar="REF=URL", help="give the URL wherever the payload has this ref"
    )
    found.add_argument("--serve-files-dir", type=Path, metavar="FOLDER", help="serve a file API over this folder")
    found.add_argument("--serve-files-listen", default="0.0.0.0:8081", metavar="HOST:PORT")
    found.add_argument("--serve-files-url", default="", metavar="URL", help="the file API's address as the worker sees it")
    found.add_argument("--print-events", action="store_true")
    found.add_argument("--print-registrations", action="store_true")
    return found


def read_payload(text: str, replacements: Sequence[str]) -> Any:
    """The payload with refs replaced by URLs; `ArgumentError` names what cannot be parsed."""
    urls = {}
    for pair in replacements:
        ref, equals, url = pair.partition("=")
        if not equals or not ref.strip() or not url.strip():
            raise ArgumentError(f"--input-ref-url {pair!r}: expected REF=URL")
        urls[ref.strip().lstrip("/")] = url.strip()
    try:
        payload = json.loads(text)
    except ValueError as exc:
        raise ArgumentError(f"--payload-json is not JSON: {exc}") from None
    if not isinstance(payload, dict):
        raise ArgumentError(f"--payload-json holds a {type(payload).__name__}; expected an object")
    return _with_urls(payload, urls)


async def invoke(args: argparse.Namespace, payload: Any, file_api: tuple[str, str]) -> int:
    """Serve until the run is over; returns the exit status."""
    heard = _print_registration if args.print_registrations else None
    async with LoopbackScheduler(args.listen, file_api=file_api, on_message=heard) as scheduler:
        print(f"listening on {scheduler.address}", file=sys.stderr, flush=True)
        try:
            worker = await scheduler.worker(args.wait_s)
        except TimeoutError:
            print(f"no worker connected within {args.wait_s:g} s", file=sys.stderr)
            return 2
        resources = worker.resources
        print(f"[connected] worker_id={resources.worker_id!r} release_id={resources.release_id!r}")
        if resources.available_functions:
            print(f"[connected] functions={list(resources.available_functions)!r}")
        shown = [(key, "<redacted>" if key == "authorization" else value) for key, value in worker.metadata.items()]
        print(f"[connected] metadata={shown!r}", flush=True)
        run = await scheduler.start_run(
            args.run,
            payload,
            run_id=f"mock-{secrets.token_hex(6)}",
            timeout_ms=args.timeout_ms,
            owner=args.owner,
            invoker_id=args.invoker_id,
            required_models=tuple(args.required_model),
        )
        print(f"[sent] run_id={run.run_id} function={args.run!r}", flush=True)
        result = await _follow(run, max(args.wait_s, MIN_SILENCE_S), print_events=args.print_events)
    if result is None:
        print(f"no result: no message about the run for {max(args.wait_s, MIN_SILENCE_S):g} s", file=sys.stderr)
        return 3
    return _print_result(result)


async def _follow(run: LoopbackRun, silence_s: float, *, print_events: bool) -> RunResult | None:
    """Print events as they come, until the result is there or nothing has come for too long."""
    seen = 0
    heard_s = time.monotonic()
    while True:
        ended = bool(run.results)
        for event in run.events[seen:]:
            if print_events:
                print(f"[event] {event.event_type}: {event.payload.decode(errors='replace')}", flush=True)
        if len(run.events) > seen:
            heard_s = time.monotonic()
        seen = len(run.events)
        if ended:
            return run.results[0]
        if time.monotonic() - heard_s > silence_s:
            return None
        try:
            await run.result(LOOK_S)
        except TimeoutError:
            continue


def _print_result(result: RunResult) -> int:
    if result.success:
        if result.output:
            text = json.dumps(msgspec.to_builtins(msgspec.msgpack.decode(result.output)), indent=2, sort_keys=True, ensure_ascii=False)
            print(f"[output] {text}")
        else:
            print("[output] <empty>")
        return 0
    print(f"[error] type={result.error_type!r} retryable={result.retryable} safe={result.safe_message!r}", file=sys.stderr)
    if result.error_message:
        print(f"[error] message={result.error_message}", file=sys.stderr)
    return 1


def _print_registration(message: Any) -> None:
    if isinstance(message, Registration):
        print("[registration]", flush=True)


def _with_urls(value: Any, urls: dict[str, str]) -> Any:
    if isinstance(value, dict):
        found = {key: _with_urls(item, urls) for key, item in value.items()}
        ref = found.get("ref")
        if isinstance(ref, str) and ref.lstrip("/") in urls:
            found["ref"] = urls[ref.lstrip("/")]
        return found
    return [_with_urls(item, urls) for item in value] if isinstance(value, list) else value


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags, serve one run; returns the exit status."""
    args = parser().parse_args(argv)
    server: FileServer | None = None
    try:
        payload = read_payload(args.payload_json, args.input_ref_url)
        file_api = ("", "")
        if args.serve_files_dir is not None:
            args.serve_files_dir.mkdir(parents=True, exist_ok=True)
            token = secrets.token_urlsafe(24)
            server = FileServer(args.serve_files_dir, args.serve_files_listen, token)
            server.start()
            print(f"[file-api] listening={server.address} dir={str(args.serve_files_dir)!r}", flush=True)
            file_api = (args.serve_files_url or server.base_url.replace("//0.0.0.0:", "//127.0.0.1:"), token)
        return asyncio.run(invoke(args, payload, file_api))
    except (ArgumentError, OSError) as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        if server is not None:
            server.stop()


if __name__ == "__main__":
    sys.exit(main())
