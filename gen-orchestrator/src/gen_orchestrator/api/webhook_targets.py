"""The webhook that a request asks for."""

from typing import Protocol

import msgspec

from gen_orchestrator.domain.webhooks import Target
from gen_worker.contract.run import InvokeOptions
from gen_worker.front_doors.cog.predictions import BASE_HEADER
from gen_worker.http.asgi import Request, RequestError
from gen_worker.net.public_urls import BlockedURLError, PrivateHostError


class WebhookReceivers(Protocol):
    """Knows which URLs may be notified about runs."""

    def read(self, url: str) -> object:
        """`BlockedURLError` for a URL that may not be notified; `PrivateHostError` where a setting would allow it."""
        ...


def webhook_target(request: Request, options: InvokeOptions, receivers: WebhookReceivers) -> bytes:
    """The target as it is stored with the run (`read_target`); `RequestError` 400 for a URL that may not be notified."""
    try:
        receivers.read(options.webhook)
    except BlockedURLError as exc:
        why = str(exc).removeprefix("input url blocked: ")
        hint = "expected a URL such as https://example.com/hook"
        if isinstance(exc, PrivateHostError):
            hint = "to notify a server on this machine or network, start the platform with --allow-private-webhooks"
        detail = f"webhook {options.webhook[:100]!r}: {why}"
        raise RequestError(400, "validation", detail, error="invalid_webhook", hint=hint) from None
    return msgspec.json.encode(Target(options.webhook, options.webhook_events, request.header(BASE_HEADER)[:300]))
