"""Many runs while workers and nodes are killed and stopped at random; what must hold afterwards is checked run by run.

    callers --keyed runs, asked again until they are answered--> nodes --> workers
                                                                  ^          ^
    striker --SIGKILL, SIGSTOP: whom and when follow the seed-----+----------+

Every answer that a caller got is kept. When all runs are over, each is read again: none may be missing, changed, or there twice, no output
may be another run's, no stream may have a gap, nothing may have been executed more often than it was given out. Then all nodes are killed
once more, and the same must be read after their start.

Which strikes come, and after how many accepted runs, is a matter of the seed alone; which run is hit is not, as the machine's timing has a part
in that.
"""

import json
import os
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import httpx
import msgspec
from platform_process import PlatformProcess, read_events
from waiting import until

STREAMED = 20
OVER_S = 180.0
LONG_S = 40.0  # longer than a lease


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`long_stops` of the strikes leave a worker stopped for longer than its lease."""

    seed: int
    runs: int
    strikes: int
    callers: int = 6
    long_stops: int = 0


class Strike(msgspec.Struct, frozen=True):
    """`after` so many accepted runs. `which` chooses among those that are there, in [0, 1); `seconds` is for how long somebody is stopped, or for
    how long a node lives that is killed once more while it starts (0: it is not)."""

    after: int
    target: str  # worker, node
    signal: str  # kill, stop
    which: float
    seconds: float


class Report(msgspec.Struct, kw_only=True):
    """What came of it. `broken` is empty when all held."""

    plan: Plan
    took_s: float
    strikes: Counter[str]
    attempts: Counter[int]
    asked: int
    given_up: int
    broken: list[str]


def planned(plan: Plan) -> list[Strike]:
    """The strikes of a seed, in their order."""
    random = Random(plan.seed)
    goals = sorted(random.sample(range(plan.runs // 50, plan.runs - plan.runs // 50), plan.strikes))
    long = set(random.sample(range(plan.strikes), plan.long_stops))
    found = []
    for number, after in enumerate(goals):
        target, kind = random.choice(("worker", "worker", "node")), random.choice(("kill", "stop"))
        which, share = random.random(), random.random()
        if number in long:
            target, kind, seconds = "worker", "stop", LONG_S
        elif kind == "stop":
            seconds = 0.02 * (300 if target == "node" else 150) ** share  # up to 3 s for a worker, 6 s for a node: longer than it leads for
        else:
            seconds = 2 * share if target == "node" and share < 0.3 else 0.0
        found.append(Strike(after, target, kind, which, round(seconds, 3)))
    return found


def payload_of(number: int, folder: str) -> tuple[str, dict[str, Any]]:
    """The function and payload of the run with this number: quick ones, slow ones, streams, files, and some that fail at first."""
    text = f"run {number}"
    match number % 20:
        case 3 | 9 | 15:
            return "sleep", {"text": text, "seconds": 0.05, "folder": folder}
        case 6 | 16:
            return "count", {"times": STREAMED}
        case 12:
            return "save", {"text": text}
        case _:
            return "echo", {"text": text}


class Storm:
    """One storm over nodes that share a store. `folder` is where functions note that they began."""

    def __init__(self, plan: Plan, nodes: list[PlatformProcess], folder: Path) -> None:
        self._plan = plan
        self._nodes = nodes
        self._folder = str(folder)
        self._ids: dict[int, str] = {}
        self._seen: dict[str, dict[str, Any]] = {}  # final runs as callers were told first
        self._broken: list[str] = []
        self._asked = 0
        self._strikes: Counter[str] = Counter()
        self._resuming: list[threading.Thread] = []

    def blow(self) -> Report:
        """Do all of it; takes as long as it takes."""
        began_s = time.monotonic()
        with ThreadPoolExecutor(self._plan.callers) as threads:
            callers = [threads.submit(self._call, lane) for lane in range(self._plan.callers)]
            for strike in planned(self._plan):
                until(lambda strike=strike: len(self._ids) >= strike.after, OVER_S, self._logs)
                self._strike(strike)
            for caller in callers:
                caller.result()
        for thread in self._resuming:
            thread.join()
        final = {number: self._over(run_id) for number, run_id in self._ids.items()}
        given_up = self._judge(final)
        for node in self._nodes:
            node.kill()
        for node in self._nodes:
            node.start()
        again = {number: self._over(run_id) for number, run_id in self._ids.items()}
        self._broken += [f"run {number} changed by a restart" for number in final if again[number] != final[number]]
        return Report(
            plan=self._plan,
            took_s=time.monotonic() - began_s,
            strikes=self._strikes,
            attempts=Counter(run["attempt"] for run in final.values()),
            asked=self._asked,
            given_up=given_up,
            broken=self._broken,
        )

    # ---- callers

    def _call(self, lane: int) -> None:
        with httpx.Client(timeout=30, trust_env=False) as http:
            self._call_with(http, lane)

    def _call_with(self, http: httpx.Client, lane: int) -> None:
        random = Random(f"{self._plan.seed} {lane}")
        for number in range(lane, self._plan.runs, self._plan.callers):
            function, payload = payload_of(number, self._folder)
            waits = random.random() < 0.5
            while number not in self._ids:
                self._asked += 1
                try:
                    answer = http.post(
                        f"{random.choice(self._nodes).url}/v1/local/probe/{function}",
                        json={"payload": payload},
                        headers={"idempotency-key": f"k{number}", "prefer": "wait=20" if waits else "respond-async"},
                    )
                except httpx.HTTPError:
                    time.sleep(0.02)  # waits: as callers do before they ask again
                    continue
                if answer.status_code in (200, 202) or "run_id" in answer.text:
                    self._take(number, answer)
                elif answer.status_code not in (429, 503):
                    self._broken.append(f"run {number}: {answer.status_code} {answer.text[:300]}")

    def _take(self, number: int, answer: httpx.Response) -> None:
        said = answer.json()
        run_id = said.get("id") or said["run_id"]
        if said.get("status") in ("succeeded", "failed"):
            self._seen[run_id] = {"input": payload_of(number, self._folder)[1]} | said  # whoever sent it is not told it again
        self._ids[number] = run_id

    def _over(self, run_id: str) -> dict[str, Any]:
        """The run when it is over, from any node that answers."""
        found: dict[str, Any] = {}

        def look() -> bool:
            for node in self._nodes:
                with suppress(httpx.HTTPError):
                    answer = node.http.get(f"/v1/runs/{run_id}", params={"wait": 10})
                    if answer.status_code == 200 and answer.json()["finished_at"]:
                        found.update(answer.json())
                        return True
                    if answer.status_code == 404:
                        found.update({"id": run_id, "status": "lost", "attempt": 0})
                        return True
            return False

        until(look, OVER_S, self._logs)
        return found

    # ---- strikes

    def _strike(self, strike: Strike) -> None:
        self._strikes[f"{strike.target} {strike.signal}"] += 1
        if strike.target == "node":
            node = self._nodes[int(strike.which * len(self._nodes))]
            if strike.signal == "kill":
                node.kill()
                if strike.seconds:
                    self._kill_while_it_starts(node, strike.seconds)
                node.start()
            else:
                node.process.send_signal(signal.SIGSTOP)
                self._later(node.process.pid, strike.seconds).join()
            return
        pids = until(self._workers, OVER_S, self._logs)
        pid = pids[int(strike.which * len(pids))]
        with suppress(ProcessLookupError):
            if strike.signal == "kill":
                os.kill(pid, signal.SIGKILL)
            else:
                os.kill(pid, signal.SIGSTOP)
                self._resuming.append(self._later(pid, strike.seconds))

    def _workers(self) -> list[int]:
        return sorted(pid for node in self._nodes for pid in node.worker_pids().values())

    def _kill_while_it_starts(self, node: PlatformProcess, seconds: float) -> None:
        process = node.launch()
        with suppress(TimeoutError):  # alive when the time is over: that is the point
            until(lambda: process.poll() is not None, seconds)
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def _later(self, pid: int, seconds: float) -> threading.Thread:
        def resume() -> None:
            time.sleep(seconds)  # waits: so long it is stopped
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

        thread = threading.Thread(target=resume, name=f"resume-{pid}")
        thread.start()
        return thread

    # ---- judgement

    def _judge(self, final: dict[int, dict[str, Any]]) -> int:
        broken = self._broken
        if len(set(self._ids.values())) != len(self._ids):
            broken.append("two keys have the same run")
        listed = self._listed()
        if sorted(listed) != sorted(self._ids.values()):
            broken.append(f"{len(listed)} runs are listed, {len(set(listed))} of them once, for {len(self._ids)} keys")
        began = Counter(line.split()[0] for line in _lines(Path(self._folder) / "notes"))
        given_up = 0
        for number, run in final.items():
            where = f"run {number} ({run['id']})"
            if told := self._seen.get(run["id"]):
                changed = {name: (told.get(name), run.get(name)) for name in (told | run) if told.get(name) != run.get(name)}
                if changed:
                    broken.append(f"{where} changed: {json.dumps(changed)}")
            if run["status"] != "succeeded":
                error = run.get("error") or {}
                given_up += error.get("code") == "worker_lost"
                broken.append(f"{where} is {run['status']}: {json.dumps(error)}")
                continue
            if began[run["id"]] > run["attempt"]:
                broken.append(f"{where} began {began[run['id']]} times in {run['attempt']} attempts")
            if (wrong := self._wrong_output(number, run)) is not None:
                broken.append(f"{where}: {wrong}")
        return given_up

    def _wrong_output(self, number: int, run: dict[str, Any]) -> str | None:
        function, payload = payload_of(number, self._folder)
        http = self._nodes[0].http
        if function == "count":
            with http.stream("GET", f"/v1/runs/{run['id']}/events", headers={"accept": "text/event-stream"}) as answer:
                events = list(read_events(answer))
            outputs = [(ident, data["number"]) for ident, name, data in events if name == "output"]
            due = [(f"{run['attempt']}-{place + 1}", place) for place in range(STREAMED)]
            return None if outputs[-STREAMED:] == due else f"its stream is {outputs}"
        if function == "save":
            answer = http.get(f"/v1/files/local/{run['output']['file']['ref']}")
            return None if answer.text == payload["text"] else f"its file is {answer.status_code} {answer.text[:100]}"
        return None if run["output"]["text"] == payload["text"] else f"its output is {run['output']}"

    def _listed(self) -> list[str]:
        found: list[str] = []
        cursor = ""
        while True:
            page = self._nodes[0].http.get("/v1/runs", params={"limit": 200} | ({"cursor": cursor} if cursor else {})).json()
            found += [run["id"] for run in page["data"]]
            cursor = page.get("next_cursor") or ""
            if not cursor:
                return found

    def _logs(self) -> str:
        return "\n".join(node.log.read_text()[-2000:] for node in self._nodes)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
