"""The operations on keys and the audit, for the OpenAPI document."""

from gen_orchestrator.api.operations import TEXT, list_of, object_of, operation, path
from gen_orchestrator.domain.budgets import MAX_RUNS
from gen_worker.http.components import Schema
from gen_worker.http.openapi import json_response

_SECONDS: Schema = {"type": "number"}
_TEXTS: Schema = {"type": "array", "items": TEXT}
_RUNS: Schema = {"type": "integer", "minimum": 1, "maximum": MAX_RUNS}
_BUDGETS = {
    "rate": {**TEXT, "description": "Runs a second, minute or hour, such as 60/m"},
    "concurrency": {**_RUNS, "description": "Runs that are open at once"},
    "gpu_seconds": {**TEXT, "description": "GPU seconds of a day or month, in UTC, such as 3600/d"},
}
_USED = dict.fromkeys(_BUDGETS, _SECONDS)
_SHOWN = {"budgets": object_of("", **_BUDGETS), "used": object_of("", **_USED)}
_WANTED: dict[str, Schema] = {name: {"anyOf": [schema, {"type": "null"}]} for name, schema in _BUDGETS.items()}
_KEY = object_of(
    "key_id owner name scopes created_at expires_at revoked_at enforced budgets used",
    enforced={"type": "boolean", "description": "False where this platform asks nobody for keys: then budgets bound nobody"},
    **dict.fromkeys(("key_id", "owner", "name"), TEXT),
    scopes=_TEXTS,
    **dict.fromkeys(("created_at", "expires_at", "revoked_at"), _SECONDS),
    **_SHOWN,
)
_MADE_KEY: Schema = {**_KEY, "properties": {**_KEY["properties"], "key": TEXT}, "required": [*_KEY["required"], "key"]}
_NEW_KEY = object_of("scopes", scopes=_TEXTS, name=TEXT, owner=TEXT, life_s={"type": "number", "minimum": 0}, **_WANTED)
_ME = object_of("owner scopes name", owner=TEXT, scopes=_TEXTS, name=TEXT, **_SHOWN)
_AUDIT = object_of(
    "row_id at owner actor action subject detail",
    **dict.fromkeys(("row_id", "owner", "actor", "action", "subject", "detail"), TEXT),
    at={"type": "number"},
)
_SIGNING_KEY = object_of("kid signs valid_until", kid=TEXT, signs={"type": "boolean"}, valid_until={"anyOf": [_SECONDS, {"type": "null"}]})
_ROTATED = object_of("kid data", kid=TEXT, data={"type": "array", "items": _SIGNING_KEY})


def key_paths() -> dict[str, Schema]:
    """Paths of keys and the audit."""
    key_id = path("key_id")
    return {
        "/v1/me": {"get": operation("get_me", "What this key may do", {"200": json_response("Whose it is", _ME)})},
        "/v1/keys": {
            "get": operation("list_keys", "Keys, newest first", {"200": json_response("Keys", list_of(_KEY))}, query=("owner",)),
            "post": operation(
                "create_key",
                "Make a key",
                {"201": json_response("The key, told this once", _MADE_KEY)},
                body={"required": True, "content": {"application/json": {"schema": _NEW_KEY}}},
            ),
        },
        "/v1/keys/{key_id}": {
            "patch": operation(
                "change_key",
                "Change a key's budgets",
                {"200": json_response("It", _KEY)},
                key_id,
                body={"required": True, "content": {"application/json": {"schema": object_of("", **_WANTED)}}},
            ),
            "delete": operation("revoke_key", "Accept a key no more", {"200": json_response("It", _KEY)}, key_id),
        },
        "/v1/signing-keys": {
            "get": operation("list_signing_keys", "Keys of worker tokens", {"200": json_response("As in the JWKS", list_of(_SIGNING_KEY))}),
            "post": operation("rotate_signing_key", "Sign with a new key", {"201": json_response("The new key, and all", _ROTATED)}),
        },
        "/v1/audit": {
            "get": operation("list_audit", "What was done", {"200": json_response("Rows", list_of(_AUDIT))}, query=("limit", "owner"))
        },
    }
