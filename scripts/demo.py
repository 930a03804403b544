"""Start the platform on examples/digits, draw one picture through it, fetch it, and go on serving."""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUTPUTS = ROOT / "outputs"
FUNCTION = "local/digits/generate"
START_TIMEOUT_S = 120


def start(listen: str, data: Path) -> subprocess.Popen[bytes]:
    """The platform on the digits example, as `cozyctl up` starts it. Its state is in `data`, so that it starts the same every time."""
    command = [str(Path(sys.executable).parent / "cozyctl"), "up", str(ROOT / "examples/digits"), "--listen", listen, "--data", str(data)]
    command += ["--model", f"digits={ROOT / 'examples/models/digits-sd'}"]
    environment = {**os.environ, "TRANSFORMERS_VERBOSITY": "error"}
    return subprocess.Popen(command, cwd=ROOT, env=environment)


def refuse_used_port(listen: str) -> None:
    """Exit when somebody else serves there: the demo would draw through a stranger."""
    host, _, port = listen.rpartition(":")
    with socket.socket() as sock:
        if sock.connect_ex((host, int(port))) == 0:
            sys.exit(f"{listen} is already used: stop the other server, or choose another port: make demo LISTEN={host}:{int(port) + 1}")


def wait_until_ready(runner: subprocess.Popen[bytes], url: str) -> None:
    """Return once `/readyz` answers; exit when the runner ends, or does not come up."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if runner.poll() is not None:
            sys.exit(runner.returncode or 1)  # it has said why
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    sys.exit(f"the runner did not answer at {url} within {START_TIMEOUT_S} s")


def draw(url: str, prompt: str) -> int:
    """Run the function and print its events as they come; 0 when it succeeded."""
    request = urllib.request.Request(
        f"{url}/v1/{FUNCTION}",
        json.dumps({"payload": {"prompt": prompt}}).encode(),
        {"content-type": "application/json", "accept": "text/event-stream"},
    )
    print(f"drawing {prompt!r}", flush=True)
    name = ""
    with urllib.request.urlopen(request, timeout=300) as response:
        for line in response:
            field, _, text = line.decode().rstrip("\n").partition(": ")
            if field == "event":
                name = text
            elif field == "data":
                if name == "done":
                    return show_end(url, json.loads(text))
                show(name, json.loads(text))
    return 1


def show(name: str, data: dict) -> None:
    """One line for an event that a person wants to see."""
    if name == "progress":
        share = data["progress"]
        print(f"  {'#' * round(share * 20):<20} {share:4.0%} {data.get('stage', '')}", flush=True)
    elif name == "status":
        print(f"  {data['status']}", flush=True)


def show_end(url: str, run: dict) -> int:
    """Fetch the picture of a run that succeeded."""
    if run["status"] != "succeeded":
        print(f"{run['status']}: {run['error']['detail']}")
        return 1
    print(f"done in {run['timings']['total_ms']} ms by {run['worker_id']}")
    ref = run["output"]["image"]["ref"]
    OUTPUTS.mkdir(exist_ok=True)
    picture = OUTPUTS / Path(ref).name
    with urllib.request.urlopen(f"{url}/v1/files/local/{ref}", timeout=30) as response:
        picture.write_bytes(response.read())
    print(f"picture: {picture}\n     run: {url}/v1/runs/{run['id']}")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:8080")
    parser.add_argument("--prompt", default="seven")
    parser.add_argument("--once", action="store_true", help="stop the runner afterwards")
    args = parser.parse_args()
    url = f"http://{args.listen}"
    refuse_used_port(args.listen)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the runner is stopped, too
    data = tempfile.TemporaryDirectory(prefix="gen-worker-demo-")
    runner = start(args.listen, Path(data.name))
    try:
        wait_until_ready(runner, url)
        status = draw(url, args.prompt)
        if args.once or status:
            return status
        print(
            f"try more: COZY_URL={url} {Path(sys.executable).parent}/cozyctl invoke {FUNCTION} -i prompt=three; stop with Ctrl-C",
            flush=True,
        )
        return runner.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        if runner.poll() is None:
            runner.send_signal(signal.SIGTERM)
            runner.wait(30)
        data.cleanup()


if __name__ == "__main__":
    sys.exit(main())
