"""The `Idempotency-Key` header (IETF draft-ietf-httpapi-idempotency-key-header): one rule for all our servers."""

from gen_worker.http.asgi import Request, RequestError

MAX_KEY_CHARACTERS = 255


def idempotency_key(request: Request) -> str:
    """The key, `""` when none was sent. `RequestError` 400 for a key that cannot be stored, including an empty one,
    because its sender relies on it.
    """
    sent = request.has_header(b"idempotency-key")
    key = request.header(b"idempotency-key").strip()
    if sent and (not key or len(key) > MAX_KEY_CHARACTERS or not key.isascii() or not key.isprintable()):
        detail = f"Idempotency-Key {key[:40]!r}: expected 1 to {MAX_KEY_CHARACTERS} printable ASCII characters"
        raise RequestError(400, "validation", detail, error="invalid_idempotency_key")
    return key
