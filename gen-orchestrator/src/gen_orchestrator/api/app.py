"""The routes of the control plane as one ASGI application."""

from collections.abc import Sequence

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from gen_orchestrator.api.admin import AdminRoutes
from gen_orchestrator.api.builds import BuildRoutes
from gen_orchestrator.api.docs import DocsRoutes
from gen_orchestrator.api.files import FileRoutes
from gen_orchestrator.api.models import ModelRoutes
from gen_orchestrator.api.releases import ReleaseRoutes
from gen_orchestrator.api.runs import RunRoutes
from gen_orchestrator.api.workers import WorkerRoutes
from gen_orchestrator.store.base import StoreError, StoreFullError
from gen_worker.http.asgi import Endpoint, Handler, Request, RequestError, build_router
from gen_worker.http.hosts import HostPolicy
from gen_worker.http.problems import PROBLEM_JSON, problem
from gen_worker.log import Log

RESERVED = frozenset(
    {"runs", "releases", "workers", "status", "files", "endpoints", "tags", "builds", "models", "blobs"}
)  # no owner has such a name


def build_app(
    runs: RunRoutes,
    files: FileRoutes,
    workers: WorkerRoutes,
    admin: AdminRoutes,
    releases: ReleaseRoutes,
    builds: BuildRoutes,
    models: ModelRoutes,
    hosts: HostPolicy,
    log: Log,
) -> ASGIApp:
    """All routes. Whatever a handler raises becomes a problem."""

    async def on_error(request: Request, exc: Exception) -> None:
        if isinstance(exc, RequestError):
            body = problem(
                exc.status, exc.request_code, str(exc), error=exc.error, hint=exc.hint, instance=request.scope["path"], errors=exc.errors
            )
            headers = dict(exc.headers or {})
            if exc.status in (429, 503):
                headers.setdefault("retry-after", "1")
            if exc.status in (408, 413):
                headers["connection"] = "close"  # the rest of the body is not read
            await request.answer(exc.status, msgspec.json.encode(body), PROBLEM_JSON, headers)
            return
        if isinstance(exc, StoreError):
            full = isinstance(exc, StoreFullError)
            body = problem(507 if full else 503, "store_full" if full else "store_unavailable", str(exc), instance=request.scope["path"])
            await request.answer(body.status, msgspec.json.encode(body), PROBLEM_JSON, {"retry-after": "5" if full else "2"})
            return
        log.error("api.failed", path=request.scope["path"], error=repr(exc))
        body = problem(500, "internal", "internal error", instance=request.scope["path"])
        await request.answer(500, msgspec.json.encode(body), PROBLEM_JSON)

    docs = DocsRoutes()
    routes: Sequence[tuple[str, str, Handler]] = [
        ("GET", "/v1/runs", runs.list),
        ("GET", "/v1/runs/{run_id}", runs.get),
        ("PUT", "/v1/runs/{run_id}", runs.put),
        ("GET", "/v1/runs/{run_id}/events", runs.events),
        ("GET", "/v1/runs/{run_id}/webhooks", runs.webhooks),
        ("POST", "/v1/runs/{run_id}/cancel", runs.cancel),
        ("POST", "/v1/runs/{run_id}/retry", runs.retry),
        ("GET", "/v1/status", admin.status),
        ("GET", "/v1/workers", workers.list),
        ("GET", "/v1/workers/{worker_id}/logs", workers.logs),
        ("POST", "/v1/workers/{worker_id}/drain", workers.drain),
        ("GET", "/v1/releases", releases.list),
        ("GET", "/v1/releases/{release_id}", releases.get),
        ("GET", "/v1/releases/{release_id}/diff/{other_id}", releases.diff),
        ("GET", "/v1/tags", releases.tags),
        ("POST", "/v1/endpoints/publish", builds.publish),
        ("GET", "/v1/models", models.list),
        ("GET", "/v1/models/{owner}/{repo}", models.get),
        ("DELETE", "/v1/models/{owner}/{repo}", models.remove),
        ("PUT", "/v1/models/{owner}/{repo}/tags/{tag}", models.push),
        ("DELETE", "/v1/models/{owner}/{repo}/tags/{tag}", models.remove),
        ("PUT", "/v1/blobs/{digest}", models.put_blob),
        ("GET", "/v1/blobs/{digest}", models.get_blob),
        ("POST", "/api/v1/public/models/request", models.request_public),
        ("POST", "/api/v1/repos/{owner}/{repo}/resolve_artifact", models.resolve_artifact),
        ("GET", "/api/v1/repos/{owner}/{repo}/snapshots/{digest}/manifest", models.snapshot),
        ("GET", "/v1/builds", builds.list),
        ("GET", "/v1/builds/{build_id}", builds.get),
        ("GET", "/v1/builds/{build_id}/logs", builds.logs),
        ("POST", "/v1/builds/{build_id}/cancel", builds.cancel),
        ("GET", "/v1/endpoints/{owner}/{endpoint}/functions/{function}/tags/{tag}", releases.tag),
        ("PUT", "/v1/endpoints/{owner}/{endpoint}/functions/{function}/tags/{tag}", releases.move),
        ("GET", "/v1/files/{owner}/{ref:path}", files.download),
        ("GET", "/api/v1/file/{ref:path}", files.read),
        ("PUT", "/api/v1/file/{ref:path}", files.put),
        ("POST", "/api/v1/file/{ref:path}", files.post),
        ("GET", "/livez", admin.livez),
        ("GET", "/.well-known/jwks.json", workers.jwks),
        ("GET", "/readyz", admin.readyz),
        ("GET", "/metrics", admin.metrics),
        ("GET", "/openapi.json", admin.openapi),
        ("GET", "/docs", docs.page),
        ("GET", "/docs/{name}", docs.file),
        ("POST", "/v1/{owner}/{endpoint}/{function}", runs.invoke),  # the last: other paths look like it
    ]
    return _Front(Endpoint(runs.invoke, on_error, hosts), build_router(routes, on_error, hosts))


class _Front:
    """`POST /v1/owner/endpoint/function` goes past the router's search: it is the busy one."""

    def __init__(self, invoke: Endpoint, router: ASGIApp) -> None:
        self._invoke = invoke
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"].startswith("/v1/"):
            parts = scope["path"].split("/")
            if len(parts) == 5 and parts[2] not in RESERVED and all(parts[2:]):
                scope["path_params"] = {"owner": parts[2], "endpoint": parts[3], "function": parts[4]}
                await self._invoke(scope, receive, send)
                return
        await self._router(scope, receive, send)
