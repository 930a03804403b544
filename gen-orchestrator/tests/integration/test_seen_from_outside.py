"""Metrics and traces, as other programs read them."""

import gzip
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from platform_process import PlatformProcess
from serve_process import ServeProcess

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_metrics_are_what_prometheus_reads(platform: PlatformProcess) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    platform.invoke("echo")
    platform.invoke("count", {"times": 3})
    platform.invoke("refuse")
    families = {family.name: family for family in parser.text_string_to_metric_families(platform.http.get("/metrics").text)}
    prefix = "gen_orchestrator_"
    wanted = (
        "build_info", "runs", "run_duration_seconds", "queue_wait_seconds", "queue_depth", "runs_in_progress", "workers", "route",
        "time_to_first_output_seconds", "model_load_seconds", "oom", "vram_used_bytes", "webhook_deliveries",
        "model_cache_hits", "model_download_bytes", "disk_cache_bytes",
    )  # fmt: skip
    assert {f"{prefix}{name}" for name in wanted} <= set(families)
    runs = {(s.labels["function"], s.labels["status"]): s.value for s in families[f"{prefix}runs"].samples}
    assert (runs["local/probe/echo", "succeeded"], runs["local/probe/refuse", "failed"]) == (1, 1)
    first = families[f"{prefix}time_to_first_output_seconds"].samples
    assert [s.value for s in first if s.name.endswith("_count")] == [1]
    buckets = [s.value for s in first if s.name.endswith("_bucket")]
    assert buckets == sorted(buckets)
    assert {s.labels["reason"]: s.value for s in families[f"{prefix}route"].samples} == {"no_models": 3}


def test_figures_follow_what_waits_and_what_runs(project: Path, tmp_path: Path) -> None:
    with (project / "cozy.toml").open("a") as file:
        file.write("\n[functions.sleep]\nmax_concurrency = 1\nqueue_max = 5\n")
    platform = PlatformProcess(project, tmp_path / "data")
    try:
        ids = []
        while (answer := platform.invoke("sleep", {"seconds": 600}, headers={"prefer": "respond-async"})).status_code == 202:
            ids.append(answer.json()["id"])
        assert (answer.status_code, answer.json()["code"], answer.json()["retryable"]) == (429, "overloaded", True), answer.text
        assert (int(answer.headers["x-queue-depth"]), int(answer.headers["retry-after"]) >= 1) == (5, True)
        assert 5 <= len(ids) <= 10
        platform.until(lambda: _of_sleep(platform, "queue_depth") and _of_sleep(platform, "runs_in_progress"))
        assert platform.figures()['workers{state="busy"}'] >= 1
        for run_id in reversed(ids):
            platform.http.post(f"/v1/runs/{run_id}/cancel")
        platform.until(lambda: not _of_sleep(platform, "queue_depth") + _of_sleep(platform, "runs_in_progress"))
        platform.until(lambda: platform.figures()['workers{state="idle"}'])
    finally:
        platform.close()


def _of_sleep(platform: PlatformProcess, name: str) -> float:
    return sum(value for key, value in platform.figures().items() if key.startswith(f"{name}{{") and 'function="sleep"' in key)


def test_the_callers_trace_reaches_the_function(platform: PlatformProcess) -> None:
    answer = platform.invoke("trace", headers={"traceparent": CALLER})
    assert answer.json()["output"]["text"] == CALLER
    assert platform.invoke("trace", headers={"traceparent": "nonsense"}).json()["output"]["text"] == ""
    again = platform.http.post(f"/v1/runs/{answer.json()['id']}/retry").json()["id"]
    assert platform.run(again, 60)["output"]["text"] == ""


@pytest.mark.parametrize("program", ["up", "serve"])
def test_spans_reach_an_otlp_receiver_below_the_callers(program: str, project: Path, tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    wire = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    spans: dict[str, Any] = {}

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            body = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
            for resource in wire.ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    spans.update({span.name: span for span in scope.spans if self.path == "/v1/traces"})
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "OTEL_BSP_SCHEDULE_DELAY": "100"}
        if program == "up":
            platform = PlatformProcess(project, tmp_path / "data", env=env)
        else:
            platform = ServeProcess(project, tmp_path / "data", "", "node", env=env)
        try:
            answer = platform.invoke("trace", headers={"traceparent": CALLER})
            assert answer.json()["output"]["text"] == CALLER, "the function is below the same span"
            platform.until(lambda: {"run", "queue", "lease", "infer"} <= set(spans))
        finally:
            platform.close()
            server.shutdown()
    trace, parent = bytes.fromhex(CALLER.split("-")[1]), bytes.fromhex(CALLER.split("-")[2])
    assert {span.trace_id for span in spans.values()} == {trace}
    assert spans["run"].parent_span_id == parent
    assert all(span.parent_span_id == spans["run"].span_id for name, span in spans.items() if name != "run")
    assert {each.key: each.value.string_value for each in spans["run"].attributes}["gen.run_id"] == answer.json()["id"]
