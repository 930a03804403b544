"""Prints gate results on the terminal."""

import json
import time
from typing import Any

from gen_orchestrator.cli.shown import age, span
from gen_worker.cli.output import print_line


def print_results(results: list[dict[str, Any]]) -> None:
    """The latest result of each gate of a release."""
    for each in results:
        word = "passed" if each["passed"] else "FAILED"
        print_line(f"{word}  {each['kind']} {each['subject']} of {each['function']}, {age(time.time() - each['at'])} ago")
        detail = each["detail"]
        if "compared" in detail:
            for line in summary(detail):
                print_line(f"        {line}")
        if detail.get("error"):
            print_line(f"        {detail['error']}")
        for place in detail.get("differences", ()):
            print_line(f"        {place['pointer'] or '(the whole)'}: {_value(place['expected'])} -> {_value(place['actual'])}")


def summary(found: dict[str, Any]) -> list[str]:
    """The results of shadow runs, as lines."""
    counts = f"{found['compared']} compared: {found['equal']} equal, {found['different']} different, {found['failed']} failed"
    lines = [counts + (f"; {found['dropped']} not run, because there was no room" if found["dropped"] else "")]
    tag, release = found["seconds"]["tag"], found["seconds"]["release"]
    if tag["p50"] is not None and release["p50"] is not None:
        lines.append("  ".join(f"{name} {span(tag[name] * 1000)} -> {span(release[name] * 1000)}" for name in ("p50", "p95")))
    if found["by_digest"]:
        why = "could not be decoded" if found["images"] == "pixels" else "pillow is not installed on the platform's machine"
        lines.append(f"{found['by_digest']} images were compared only by their digests: {why}")
    for each in found["examples"]:
        if each["error"]:
            lines.append(f"run {each['run_id']}: {each['error']}")
        for place in each["differences"]:
            lines.append(
                f"run {each['run_id']} {place['pointer'] or '(the whole)'}: {_value(place['expected'])} -> {_value(place['actual'])}"
            )
    return lines


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:100]
