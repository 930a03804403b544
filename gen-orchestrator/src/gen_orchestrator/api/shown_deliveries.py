"""Webhook deliveries as the API shows them."""

from gen_orchestrator.domain.runs import Run
from gen_orchestrator.domain.webhooks import STARTED, Delivery
from gen_worker.clock import utc_text


def shown_delivery(delivery: Delivery, run: Run, url: str) -> dict[str, object]:
    """A delivery of a run to `url`, with its tries."""
    return {
        "id": delivery.id,
        "event": f"run.{STARTED}" if delivery.moment == STARTED else f"run.{run.state}",
        "url": url,
        "state": delivery.state,
        "created_at": utc_text(delivery.created_at),
        "next_try_at": utc_text(delivery.next_at) if delivery.state == "pending" else None,
        "tries": [
            {"at": utc_text(each.at), "status": each.status or None, "error": each.error or None, "took_ms": each.took_ms}
            for each in delivery.tries
        ],
    }
