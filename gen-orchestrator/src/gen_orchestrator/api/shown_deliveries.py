"""Webhook deliveries as the API shows them."""

from datetime import UTC, datetime

from gen_orchestrator.domain.runs import Run
from gen_orchestrator.domain.webhooks import STARTED, Delivery


def shown_delivery(delivery: Delivery, run: Run, url: str) -> dict[str, object]:
    """A delivery of a run to `url`, with its tries."""
    return {
        "id": delivery.id,
        "event": f"run.{STARTED}" if delivery.moment == STARTED else f"run.{run.state}",
        "url": url,
        "state": delivery.state,
        "created_at": _time(delivery.created_at),
        "next_try_at": _time(delivery.next_at) if delivery.state == "pending" else None,
        "tries": [
            {"at": _time(each.at), "status": each.status or None, "error": each.error or None, "took_ms": each.took_ms}
            for each in delivery.tries
        ],
    }


def _time(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
