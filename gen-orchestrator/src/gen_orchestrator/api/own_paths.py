"""Parameters and answers of the API's own routes, for the OpenAPI document. A test compares this list with the routes."""

from gen_orchestrator.api.build_paths import build_paths
from gen_orchestrator.api.disk_paths import disk_paths
from gen_orchestrator.api.gate_paths import gate_paths
from gen_orchestrator.api.key_paths import key_paths
from gen_orchestrator.api.operations import BYTES as _BYTES
from gen_orchestrator.api.operations import NUMBER as _NUMBER
from gen_orchestrator.api.operations import TEXT as _TEXT
from gen_orchestrator.api.operations import list_of as _list
from gen_orchestrator.api.operations import object_of as _object
from gen_orchestrator.api.operations import operation as _operation
from gen_orchestrator.api.operations import path as _path
from gen_orchestrator.api.operations import statuses as _statuses
from gen_orchestrator.api.removal_paths import delete_release, removal_paths
from gen_orchestrator.api.secret_paths import secret_paths
from gen_orchestrator.api.shadow_paths import shadow_paths
from gen_orchestrator.api.usage_paths import usage_paths
from gen_orchestrator.api.withdrawal import withdrawal_paths
from gen_worker.front_doors.openapi import door_paths
from gen_worker.http.components import REF, Schema
from gen_worker.http.openapi import json_response, problem_response

RUN: Schema = {"$ref": REF.format(name="RunObject")}
_PAGE: Schema = {"$ref": REF.format(name="RunPage")}
_TAG_NAME: Schema = {"type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,63}$"}
_OK: Schema = {"type": "object", "required": ["ok"], "properties": {"ok": {"type": "boolean"}}}

_OPTIONAL: Schema = {"anyOf": [_TEXT, {"type": "null"}]}
_TEXTS: Schema = {"type": "array", "items": _TEXT}
_HELD = _object("model tier size_bytes", model=_TEXT, tier=_TEXT, size_bytes=_NUMBER)  # tier: vram, host, disk
_MEMORY = ("gpu_bytes", "gpu_used_bytes", "host_bytes")
_WORKER = _object(
    "worker_id state",
    **dict.fromkeys(("worker_id", "release_id", "state"), _TEXT),
    **dict.fromkeys(("runs", "functions", "vram_models", "disk_models"), _TEXTS),
    gpu=_OPTIONAL,
    memory=_object("models", **dict.fromkeys(_MEMORY, _NUMBER), models={"type": "array", "items": _HELD}),
)
_TOLD = "worker_id release_id owner token issuer audience scheduler_addr"
_WORKER_TOKEN = _object(_TOLD, **dict.fromkeys(_TOLD.split(), _TEXT))
_NEW_WORKER_TOKEN = {"type": "object", "properties": {"life_s": {"type": "number", "minimum": 1}}, "additionalProperties": False}
_RELEASE = _object(
    "release_id owner endpoint source created_at message functions",
    **dict.fromkeys(("release_id", "owner", "endpoint", "source", "message"), _TEXT),
    created_at={"type": "number"},
    functions=_TEXTS,
)
_TAG = _object(
    "owner endpoint function tag release_id version moved_at",
    **dict.fromkeys(("owner", "endpoint", "function", "tag", "release_id"), _TEXT),
    version=_NUMBER,
    moved_at={"type": "number"},
)
_TAG["properties"]["candidate"] = _object(
    "release_id percent since", release_id=_TEXT, percent={"type": "number"}, since={"type": "number"}
)
_RELEASE["properties"]["tags"] = _TEXTS
_RELEASE["properties"]["deleted_at"] = {"type": "number"}  # for deleted releases
_LACKS = dict.fromkeys(("unset_secrets", "model_problems"), _TEXTS)
_WHOLE_RELEASE: Schema = {**_RELEASE, "properties": {**_RELEASE["properties"], **_LACKS, "manifest": {"type": "object"}}}
_PAST_TAG: Schema = {**_TAG, "properties": {**_TAG["properties"], "deleted_at": {"type": "number"}}}
_TAG_HISTORY: Schema = {**_TAG, "properties": {**_TAG["properties"], "history": {"type": "array", "items": _PAST_TAG}}}
_CHANGE = _object(
    "function side pointer text breaking",
    **dict.fromkeys(("function", "pointer", "text"), _TEXT),
    side={"type": "string", "enum": ["function", "input", "output", "env"]},
    breaking={"type": "boolean"},
)
_DIFF = _object(
    "from to breaking changes",
    **{"from": _TEXT, "to": _TEXT, "breaking": {"type": "boolean"}, "changes": {"type": "array", "items": _CHANGE}},
)
_FREED = _object("freed_bytes", freed_bytes=_NUMBER)
_COLLECTED = _object("blobs freed_bytes", blobs=_NUMBER, freed_bytes=_NUMBER)
_MODEL_TAG = _object(
    "tag versions moved_at", tag=_TEXT, versions={"type": "object", "additionalProperties": _TEXT}, moved_at={"type": "number"}
)
_MODEL = _object("owner repo tags", owner=_TEXT, repo=_TEXT, tags={"type": "array", "items": _MODEL_TAG})
_MODEL_FILE = _object("path size_bytes blake3", path=_TEXT, size_bytes=_NUMBER, blake3=_TEXT)
_VERSION = _object(
    "digest files precision message licence pushed_at",
    **dict.fromkeys(("digest", "precision", "message", "licence", "changed_link"), _TEXT),
    files={"type": "array", "items": _MODEL_FILE},
    pushed_at={"type": "number"},
)
_WHOLE_MODEL: Schema = {**_MODEL, "properties": {**_MODEL["properties"], "versions": {"type": "array", "items": _VERSION}}}
_PUSH = _object("files", files={"type": "array", "items": _MODEL_FILE}, message=_TEXT, allow_unsafe={"type": "boolean", "default": False})
_SECONDS: Schema = {"type": "number"}
_EXPORT = _object(
    "format version run release events",
    format=_TEXT,
    version=_NUMBER,
    run=RUN,
    release={"type": "object"},
    events={"type": "array", "items": {"type": "object"}},
)
_MOVE = _object(
    "release_id",
    release_id=_TEXT,
    expected=_OPTIONAL,
    **{name: {"type": "boolean"} for name in ("breaking", "now", "skip_gates", "dry_run")},
    canary={"anyOf": [{"type": "number", "minimum": 0, "maximum": 100}, {"type": "null"}]},
)
_DISK = "releases sources_bytes environments_bytes images_bytes"
_STATUS = _object(
    "version open_runs lanes workers tags disk",
    version=_TEXT,
    open_runs=_NUMBER,
    lanes={
        "type": "array",
        "items": _object("release_id function queued running", release_id=_TEXT, function=_TEXT, queued=_NUMBER, running=_NUMBER),
    },
    workers={"type": "array", "items": _WORKER},
    tags={"type": "array", "items": _object("ref release_id", ref=_TEXT, release_id=_TEXT)},
    disk=_object(_DISK, **dict.fromkeys(_DISK.split(), _NUMBER)),
)
_DELIVERY = _object(
    "id event url state created_at tries",
    id=_TEXT,
    event=_TEXT,
    url=_TEXT,
    state={"type": "string", "enum": ["pending", "delivered", "failed", "unwanted"]},
    created_at=_TEXT,
    next_try_at=_OPTIONAL,
    tries={
        "type": "array",
        "items": _object(
            "at took_ms", at=_TEXT, took_ms=_NUMBER, error=_OPTIONAL, status={"anyOf": [{"type": "integer"}, {"type": "null"}]}
        ),
    },
)
_UPLOAD = _object(
    "ref owner size_bytes sha256 mime_type created_at expires_at url",
    **dict.fromkeys(("ref", "owner", "sha256", "mime_type", "created_at", "url"), _TEXT),
    size_bytes=_NUMBER,
    expires_at=_OPTIONAL,
)
_UPLOADS = _object("data next_cursor", data={"type": "array", "items": _UPLOAD}, next_cursor=_OPTIONAL)
_LOG = _object("worker_id lines next", worker_id=_TEXT, lines=_TEXTS, next=_NUMBER)


def own_paths() -> dict[str, Schema]:
    """Paths of the API itself. All may answer with a problem."""
    events: Schema = {"description": "Numbered events, and `done` with the run", "content": {"text/event-stream": {}}}
    events["content"]["application/x-ndjson"] = {"schema": _TEXT}
    file: Schema = {
        "200": {"description": "Its bytes", "content": _BYTES},
        "206": {"description": "A range of its bytes", "content": _BYTES},
    }
    run = json_response("The run", RUN)
    page = {"description": "The console", "content": {"text/html": {"schema": _TEXT}}}
    metrics = {"description": "The text format of Prometheus", "content": {"text/plain": {"schema": _TEXT}}}
    run_id, worker_id = _path("run_id"), _path("worker_id")
    model = [_path("owner"), _path("repo")]
    upload = [_path("owner"), _path("ref")]
    tag = [_path("owner"), _path("endpoint"), _path("function"), _path("tag", _TAG_NAME)]
    move = {"required": True, "content": {"application/json": {"schema": _MOVE}}}
    found: dict[str, Schema] = {
        "/v1/runs": {
            "get": _operation(
                "list_runs",
                "List runs, newest first",
                {"200": json_response("A page of runs", _PAGE)},
                query=("status", "function", "endpoint", "owner", "cursor", "limit", "include"),
            )
        },
        "/v1/runs/{run_id}": {
            "get": _operation(
                "get_run", "Get a run", {"200": run, "304": {"description": "The run has not changed"}}, run_id, query=("wait",)
            ),
            "put": _operation(
                "put_run", "Run a function with a run id chosen by the caller", _created(run), run_id, query=("function",), body=_ANY
            ),
        },
        "/v1/runs/{run_id}/events": {"get": _operation("follow_run", "Follow a run's events", {"200": events}, run_id, query=("after",))},
        "/v1/runs/{run_id}/webhooks": {
            "get": _operation(
                "list_deliveries", "List a run's webhook deliveries", {"200": json_response("Deliveries", _list(_DELIVERY))}, run_id
            )
        },
        "/v1/runs/{run_id}/webhooks/{delivery_id}/redeliver": {
            "post": _operation(
                "redeliver",
                "Send a webhook message again",
                {"202": json_response("The new delivery", _object("id state", id=_TEXT, state=_TEXT)), **_statuses("409")},
                *(run_id, _path("delivery_id")),
            )
        },
        "/v1/runs/{run_id}/export": {
            "get": _operation(
                "export_run", "Export a run as one file", {"200": json_response("The run, ready to be repeated", _EXPORT)}, run_id
            )
        },
        "/v1/runs/{run_id}/cancel": {"post": _operation("cancel_run", "Cancel a run", {"200": run}, run_id)},
        "/v1/runs/{run_id}/retry": {"post": _operation("retry_run", "Repeat a run", {"202": run, **_statuses("409", "429")}, run_id)},
        "/v1/{owner}/{endpoint}/{function}": {
            "get": _operation(
                "open_session",
                "Open a websocket to a handler (see x-websockets)",
                {
                    "101": {"description": "The websocket is open"},
                    **_statuses("405", "409"),
                    "426": problem_response("The request is not a websocket handshake"),
                },
                *(_path("owner"), _path("endpoint"), _path("function")),
                query=("run_id", "timeout_ms", "start_timeout_ms", "priority"),
            )
        },
        "/v1/status": {"get": _operation("get_status", "Show the current state", {"200": json_response("Queues, workers, tags", _STATUS)})},
        "/v1/workers": {"get": _operation("list_workers", "List workers", {"200": json_response("Workers", _list(_WORKER))})},
        "/v1/workers/{worker_id}/logs": {
            "get": _operation(
                "get_worker_logs", "Read a worker's log", {"200": json_response("Lines", _LOG)}, worker_id, query=("after", "wait")
            )
        },
        "/v1/workers/{worker_id}/drain": {
            "post": _operation(
                "drain_worker", "Drain a worker", {"202": json_response("The worker ends when its runs are over", _WORKER)}, worker_id
            )
        },
        "/v1/releases": {
            "get": _operation(
                "list_releases",
                "List releases, newest first",
                {"200": json_response("Releases", _list(_RELEASE))},
                query=("owner", "endpoint", "deleted"),
            )
        },
        "/v1/releases/{release_id}/worker-tokens": {
            "post": _operation(
                "create_worker_token",
                "Make a token for a worker",
                {"201": json_response("Its token", _WORKER_TOKEN)},
                _path("release_id"),
                body={"content": {"application/json": {"schema": _NEW_WORKER_TOKEN}}},
            )
        },
        "/v1/releases/{release_id}": {
            "get": _operation(
                "get_release", "Get a release", {"200": json_response("The release with its manifest", _WHOLE_RELEASE)}, _path("release_id")
            ),
            "delete": delete_release(),
        },
        **removal_paths(),
        **disk_paths(),
        **withdrawal_paths(),
        "/v1/releases/{release_id}/diff/{other_id}": {
            "get": _operation(
                "diff_releases",
                "Compare two releases for callers",
                {"200": json_response("The changes from the first release to the second", _DIFF)},
                _path("release_id"),
                _path("other_id"),
            )
        },
        **gate_paths(),
        **secret_paths(),
        **shadow_paths(),
        **build_paths(),
        **key_paths(),
        **door_paths("/v1/models/{owner}/{endpoint}/{function}"),
        "/v1/repos": {
            "get": _operation("list_models", "List models by name", {"200": json_response("Models", _list(_MODEL))}, query=("owner",))
        },
        **usage_paths(),
        "/v1/repos/gc": {
            "post": _operation(
                "collect_models",
                "Remove unused blobs",
                {"200": json_response("The bytes that this freed", _COLLECTED), **_statuses("500")},
            )
        },
        "/v1/models/{owner}/{repo}": {
            "get": _operation("get_model", "Get a model", {"200": json_response("The model with its versions", _WHOLE_MODEL)}, *model),
            "delete": _operation("delete_model", "Delete a model", {"200": json_response("The bytes that this freed", _FREED)}, *model),
        },
        "/v1/models/{owner}/{repo}/tags/{tag}": {
            "put": _operation(
                "push_model",
                "Push a list of files as a tag",
                {
                    "200": json_response("The version", _object("ref version", ref=_TEXT, version=_VERSION)),
                    "202": json_response(
                        "Blobs to upload first, and the folder where a client on this machine may put them",
                        _object("missing", missing=_TEXTS, inbox=_object("folder nonce", folder=_TEXT, nonce=_TEXT)),
                    ),
                },
                *model,
                _path("tag"),
                body={"required": True, "content": {"application/json": {"schema": _PUSH}}},
            ),
            "delete": _operation(
                "delete_model_tag", "Delete a tag", {"200": json_response("The bytes that this freed", _FREED)}, *model, _path("tag")
            ),
        },
        "/v1/blobs/{digest}": {
            "get": _operation(
                "get_blob", "Download a blob", {**file, **_statuses("410", "416")}, _path("digest"), query=("until", "signature")
            ),
            "put": _operation(
                "put_blob",
                "Upload a blob of a push",
                {"204": {"description": "The blob is stored"}, **_statuses("408", "413", "507")},
                _path("digest"),
                query=("inbox", "linked"),
                body={"required": True, "content": _BYTES},
            ),
        },
        "/v1/tags": {
            "get": _operation(
                "list_tags",
                "List tags and their releases",
                {"200": json_response("Tags", _list(_TAG))},
                query=("owner", "endpoint", "function"),
            )
        },
        "/v1/endpoints/{owner}/{endpoint}/functions/{function}/tags/{tag}": {
            "get": _operation("get_tag", "Get a tag", {"200": json_response("The tag and its history", _TAG_HISTORY)}, *tag),
            "put": _operation(
                "move_tag", "Move a tag: promote or roll back", {"200": json_response("The tag", _TAG), **_statuses("409")}, *tag, body=move
            ),
        },
        "/v1/files": {
            "get": _operation(
                "list_files",
                "List uploads by ref",
                {"200": json_response("A page of uploads", _UPLOADS)},
                query=("prefix", "cursor", "limit", "owner"),
            )
        },
        "/v1/files/{owner}/{ref}": {
            "get": _operation(
                "get_file",
                "Download a file",
                {**file, **_statuses("410", "412", "416", "503")},
                *upload,
                query=("sign", "method", "until", "signature"),
            ),
            "put": _operation(
                "put_file",
                "Create or replace an upload",
                {"200": json_response("The upload", _UPLOAD), **_statuses("408", "412", "413", "415", "503", "507")},
                *upload,
                query=("until", "signature"),
                body={"required": True, "content": _BYTES},
            ),
            "post": _operation(
                "create_file",
                "Create an upload",
                {"201": json_response("The upload", _UPLOAD), **_statuses("408", "409", "412", "413", "415", "503", "507")},
                *upload,
                query=("until", "signature"),
                body={"required": True, "content": _BYTES},
            ),
            "delete": _operation(
                "delete_file",
                "Delete an upload",
                {"200": json_response("The deleted upload", _UPLOAD), **_statuses("412")},
                *upload,
                query=("until", "signature"),
            ),
        },
        "/livez": {"get": _operation("get_livez", "Check that the process is alive", {"200": json_response("It is", _OK)})},
        "/readyz": {
            "get": _operation("get_readyz", "Check that it serves requests", {"200": json_response("It does", _OK), **_statuses("503")})
        },
        "/metrics": {"get": _operation("get_metrics", "Read metrics", {"200": metrics})},
        "/openapi.json": {"get": _operation("get_openapi", "This document", {"200": json_response("OpenAPI 3.1", {"type": "object"})})},
        "/": {"get": _operation("get_root", "The console", {"200": page})},
        "/docs": {"get": _operation("get_docs", "The console", {"200": page})},
    }
    return found


_ANY: Schema = {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}


def _created(run: Schema) -> Schema:
    either = {"anyOf": [RUN, {"$ref": REF.format(name="Problem")}]}
    both = {status: json_response("The run failed, or was not accepted", either, "application/problem+json") for status in ("400", "500")}
    return {"200": run, "202": run, **both, **_statuses("409", "413", "415", "422", "429", "503", "504", "507")}
