"""What the author's code reports after its run has ended is not part of the run."""

from collections.abc import Callable
from pathlib import Path

from tests.conftest import Runner, sse_events

CODE = """
class In(msgspec.Struct):
    seconds: float = 0.5

class Out(msgspec.Struct):
    text: str

@worker_function()
def thread_left_behind(ctx: ActionContext, payload: In) -> Out:
    import threading
    def late() -> None:
        while not Path("go").exists():
            time.sleep(0.01)
        for number in range(2000):
            ctx.emit("late.event", {"x": "y" * 1000})
        ctx.log("late")
        ctx.save_bytes(f"runs/{ctx.run_id}/late.txt", b"late")
        Path("gone").touch()
    threading.Thread(target=late, daemon=True).start()
    return Out("done")
"""


def test_late_events_never_take_the_number_of_done_and_are_not_kept(
    project: Callable[..., Path], start_runner: Callable[..., Runner]
) -> None:
    folder = project(CODE)
    runner = start_runner(folder)
    with runner.http.stream("POST", "/v1/run/thread-left-behind?events=all", json={}, headers={"accept": "text/event-stream"}) as response:
        run_id = response.headers["x-run-id"]
        seen = list(sse_events(response))
    (folder / "go").touch()
    runner.until(lambda: (folder / "gone").exists())
    with runner.http.stream("GET", f"/v1/runs/{run_id}/events?events=all", headers={"last-event-id": str(seen[-2][0])}) as response:
        resumed = list(sse_events(response))
    assert resumed == seen[-1:]
    run = runner.http.get(f"/v1/runs/{run_id}").json()
    assert run.get("files", []) == []
    assert runner.http.get(f"/v1/runs/{run_id}/events", headers={"last-event-id": str(seen[-1][0])}).status_code == 204


def test_one_failure_is_one_error_event(project: Callable[..., Path], start_runner: Callable[..., Runner]) -> None:
    runner = start_runner(
        project(
            """
class In(msgspec.Struct):
    n: int = 0

@worker_function()
def breaks(ctx: ActionContext, payload: In) -> Iterator[In]:
    yield In(1)
    raise ValueError("no")
"""
        )
    )
    for query in ("", "?events=all"):
        with runner.http.stream("POST", f"/v1/run/breaks{query}", json={}, headers={"accept": "text/event-stream"}) as response:
            names = [name for _, name, _ in sse_events(response)]
        assert names.count("error") == 1
        if not query:
            assert names == ["output", "error", "done"]
