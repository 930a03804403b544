"""Figures and traces, as programs read them."""

import pytest
from platform_process import PlatformProcess

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
    )  # fmt: skip
    assert {f"{prefix}{name}" for name in wanted} <= set(families)
    runs = {(s.labels["function"], s.labels["status"]): s.value for s in families[f"{prefix}runs"].samples}
    assert (runs["local/probe/echo", "succeeded"], runs["local/probe/refuse", "failed"]) == (1, 1)
    first = families[f"{prefix}time_to_first_output_seconds"].samples
    assert [s.value for s in first if s.name.endswith("_count")] == [1]
    buckets = [s.value for s in first if s.name.endswith("_bucket")]
    assert buckets == sorted(buckets)
    assert {s.labels["reason"]: s.value for s in families[f"{prefix}route"].samples} == {"no_models": 3}


def test_the_callers_trace_reaches_the_function(platform: PlatformProcess) -> None:
    answer = platform.invoke("trace", headers={"traceparent": CALLER})
    assert answer.json()["output"]["text"] == CALLER
    assert platform.invoke("trace", headers={"traceparent": "nonsense"}).json()["output"]["text"] == ""
    again = platform.http.post(f"/v1/runs/{answer.json()['id']}/retry").json()["id"]
    assert platform.run(again, 30)["output"]["text"] == ""
