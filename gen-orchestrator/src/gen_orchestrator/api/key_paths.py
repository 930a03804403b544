"""The operations on keys and the audit, for the OpenAPI document."""

from gen_orchestrator.api.operations import TEXT, list_of, object_of, operation, path
from gen_orchestrator.domain.budgets import MAX_RUNS
from gen_worker.http.components import Schema
from gen_worker.http.openapi import json_response

_SECONDS: Schema = {"type": "number"}
_TEXTS: Schema = {"type": "array", "items": TEXT}
_RUNS: Schema = {"type": "integer", "minimum": 1, "maximum": MAX_RUNS}
_BUDGETS = {
    "rate": {**TEXT, "description": "Runs per second, minute or hour, such as 60/m"},
    "concurrency": {**_RUNS, "description": "Open runs at the same time"},
    "gpu_seconds": {**TEXT, "description": "GPU seconds per day or month, in UTC, such as 3600/d"},
}
_USED = dict.fromkeys(_BUDGETS, _SECONDS)
_SHOWN = {"budgets": object_of("", **_BUDGETS), "used": object_of("", **_USED)}
_WANTED: dict[str, Schema] = {name: {"anyOf": [schema, {"type": "null"}]} for name, schema in _BUDGETS.items()}
_KEY = object_of(
    "key_id owner name scopes created_at expires_at revoked_at enforced budgets used",
    enforced={"type": "boolean", "description": "False when this platform requires no keys: then budgets have no effect"},
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
        "/v1/me": {
            "get": operation("get_me", "Describe the key of this request", {"200": json_response("Owner, scopes and budgets", _ME)})
        },
        "/v1/keys": {
            "get": operation("list_keys", "List keys, newest first", {"200": json_response("Keys", list_of(_KEY))}, query=("owner",)),
            "post": operation(
                "create_key",
                "Create a key",
                {"201": json_response("The key, shown only this once", _MADE_KEY)},
                body={"required": True, "content": {"application/json": {"schema": _NEW_KEY}}},
            ),
        },
        "/v1/keys/{key_id}": {
            "patch": operation(
                "change_key",
                "Change a key's budgets",
                {"200": json_response("The key", _KEY)},
                key_id,
                body={"required": True, "content": {"application/json": {"schema": object_of("", **_WANTED)}}},
            ),
            "delete": operation("revoke_key", "Revoke a key", {"200": json_response("The key", _KEY)}, key_id),
        },
        "/v1/signing-keys": {
            "get": operation(
                "list_signing_keys",
                "List the signing keys of worker tokens",
                {"200": json_response("The keys, as in the JWKS", list_of(_SIGNING_KEY))},
            ),
            "post": operation(
                "rotate_signing_key", "Sign with a new key from now on", {"201": json_response("The new key, and all keys", _ROTATED)}
            ),
        },
        "/v1/audit": {
            "get": operation("list_audit", "Read the audit log", {"200": json_response("Rows", list_of(_AUDIT))}, query=("limit", "owner"))
        },
    }
