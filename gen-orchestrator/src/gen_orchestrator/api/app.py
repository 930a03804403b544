"""The routes of the control plane as one ASGI application."""

from collections.abc import Callable, Sequence

import msgspec
from starlette import types
from starlette.types import ASGIApp, Receive, Send

from gen_orchestrator.api.access import Guard
from gen_orchestrator.api.admin import AdminRoutes
from gen_orchestrator.api.budget_error import BudgetError
from gen_orchestrator.api.builds import BuildRoutes
from gen_orchestrator.api.caller_files import CallerFileRoutes
from gen_orchestrator.api.catalog import PlatformCatalog
from gen_orchestrator.api.children import ChildRoutes
from gen_orchestrator.api.deploys import DeployRoutes
from gen_orchestrator.api.disk import DiskRoutes
from gen_orchestrator.api.exports import ExportRoutes
from gen_orchestrator.api.files import FileRoutes
from gen_orchestrator.api.gates import GateRoutes
from gen_orchestrator.api.keys import KeyRoutes
from gen_orchestrator.api.models import ModelRoutes
from gen_orchestrator.api.own_paths import own_paths
from gen_orchestrator.api.redeliveries import RedeliveryRoutes
from gen_orchestrator.api.release_removal import RemovalRoutes
from gen_orchestrator.api.releases import ReleaseRoutes
from gen_orchestrator.api.run_list import RunList
from gen_orchestrator.api.runs import RunRoutes
from gen_orchestrator.api.secrets import SecretRoutes
from gen_orchestrator.api.sessions import SessionRoutes
from gen_orchestrator.api.shadows import ShadowRoutes
from gen_orchestrator.api.signing_keys import SigningKeyRoutes
from gen_orchestrator.api.usage import UsageRoutes
from gen_orchestrator.api.withdrawal import WithdrawalRoutes
from gen_orchestrator.api.workers import WorkerRoutes
from gen_orchestrator.domain.access import Caller, Scope
from gen_orchestrator.store.base import DamagedRowError, StoreError, StoreFullError
from gen_worker.contract.children import CANCEL_ROUTE, CHILDREN_ROUTE
from gen_worker.contract.problem import Problem
from gen_worker.front_doors.cog.routes import CogDoor, cog_routes
from gen_worker.front_doors.errors import error_answer
from gen_worker.front_doors.files import Files
from gen_worker.front_doors.inside import Inside
from gen_worker.front_doors.mcp.routes import McpDoor
from gen_worker.front_doors.openai.routes import ModelList, openai_routes
from gen_worker.front_doors.runs import Runs
from gen_worker.http.asgi import Endpoint, Handler, Request, RequestError, build_router
from gen_worker.http.hosts import HostPolicy
from gen_worker.http.page import Page
from gen_worker.http.problems import problem
from gen_worker.http.queries import names_in, only_known, only_with
from gen_worker.log import Log

OF_FUNCTIONS = "/v1/{owner}/{endpoint}/{function}"
RESERVED = frozenset(
    {
        "runs",
        "releases",
        "workers",
        "status",
        "files",
        "endpoints",
        "tags",
        "builds",
        "models",
        "blobs",
        "keys",
        "me",
        "audit",
        "deployments",
        "goldens",
        "predictions",
        "shadows",
        "usage",
        "signing-keys",
        "disk",
    }
)  # no owner has such a name


class Rooms(msgspec.Struct, frozen=True):
    """The handlers of all routes, by subject."""

    runs: RunRoutes
    sessions: SessionRoutes
    run_list: RunList
    files: FileRoutes
    caller_files: CallerFileRoutes
    workers: WorkerRoutes
    admin: AdminRoutes
    releases: ReleaseRoutes
    builds: BuildRoutes
    models: ModelRoutes
    keys: KeyRoutes
    deploys: DeployRoutes
    exports: ExportRoutes
    gates: GateRoutes
    secrets: SecretRoutes
    redeliveries: RedeliveryRoutes
    shadows: ShadowRoutes
    children: ChildRoutes
    catalog: PlatformCatalog
    usage: UsageRoutes
    signing_keys: SigningKeyRoutes
    removal: RemovalRoutes
    disk: DiskRoutes
    withdrawal: WithdrawalRoutes


def trouble_of(exc: Exception, path: str) -> tuple[Problem, dict[str, str]]:
    """The answer for a failure that is not the caller's fault, with its headers."""
    if isinstance(exc, StoreFullError):
        return problem(507, "store_full", str(exc), instance=path), {"retry-after": "5"}
    if isinstance(exc, DamagedRowError):  # waiting does not help
        return problem(500, "internal", str(exc), instance=path), {}
    if isinstance(exc, StoreError):
        return problem(503, "store_unavailable", str(exc), instance=path), {"retry-after": "2"}
    if isinstance(exc, MemoryError):  # temporary, and a smaller request may succeed: not a bug of this program
        text = "no memory for this request now; whether it was done is unknown: send it again with the same Idempotency-Key"
        return problem(503, "overloaded", text, instance=path), {"retry-after": "5"}
    return problem(500, "internal", "internal error", instance=path), {}


def build_app(rooms: Rooms, guard: Guard, worker_of: Callable[[Request], Caller | None], hosts: HostPolicy, log: Log) -> ASGIApp:
    """All routes. Anything a handler raises becomes a problem."""

    async def on_error(request: Request, exc: Exception) -> None:
        if isinstance(exc, RequestError):
            body = exc.problem(request.scope["path"])
            if isinstance(exc, BudgetError):
                body = msgspec.structs.replace(body, budget=exc.budget)
            headers = dict(exc.headers or {})
            if exc.status in (429, 503):
                headers.setdefault("retry-after", "1")
            if exc.status in (408, 413):
                headers["connection"] = "close"  # the rest of the body is not read
            await request.answer(exc.status, *error_answer(request.scope["path"], body, headers))
            return
        body, headers = trouble_of(exc, request.scope["path"])
        if body.status == 500 or isinstance(exc, MemoryError):
            log.error("api.failed", path=request.scope["path"], error=repr(exc))
        await request.answer(body.status, *error_answer(request.scope["path"], body, headers))

    inside = Inside(lambda: front)
    cog = CogDoor(rooms.catalog, Runs(inside), Files(inside))
    page, of_task = Page("platform"), ModelList(rooms.catalog)
    runs, files, workers, admin = rooms.runs, rooms.files, rooms.workers, rooms.admin
    releases, builds, models, keys = rooms.releases, rooms.builds, rooms.models, rooms.keys
    invoke = only_with((), guard("invoke", runs.invoke))
    asked: Sequence[tuple[Scope | None, str, str, Handler]] = [
        ("invoke", "GET", "/v1/runs", rooms.run_list.list),
        ("invoke", "GET", "/v1/runs/{run_id}", runs.get),
        ("invoke", "PUT", "/v1/runs/{run_id}", runs.put),
        ("invoke", "GET", "/v1/runs/{run_id}/events", runs.events),
        ("invoke", "GET", "/v1/runs/{run_id}/webhooks", runs.webhooks),
        ("invoke", "POST", "/v1/runs/{run_id}/webhooks/{delivery_id}/redeliver", rooms.redeliveries.redeliver),
        ("invoke", "GET", "/v1/runs/{run_id}/export", rooms.exports.export),
        ("invoke", "POST", "/v1/runs/{run_id}/cancel", runs.cancel),
        ("invoke", "POST", "/v1/runs/{run_id}/retry", runs.retry),
        (None, "GET", "/v1/status", admin.status),
        (None, "GET", "/v1/workers", workers.list),
        (None, "GET", "/v1/workers/{worker_id}/logs", workers.logs),
        ("admin", "POST", "/v1/workers/{worker_id}/drain", workers.drain),
        ("admin", "POST", "/v1/releases/{release_id}/worker-tokens", workers.new_token),
        (None, "GET", "/v1/releases", releases.list),
        ("publish", "POST", "/v1/releases/prune", rooms.removal.prune),  # before the path with a parameter that would match it
        (None, "GET", "/v1/releases/{release_id}", releases.get),
        ("publish", "DELETE", "/v1/releases/{release_id}", rooms.removal.delete),
        (None, "GET", "/v1/releases/{release_id}/diff/{other_id}", releases.diff),
        ("promote", "POST", "/v1/runs/{run_id}/golden", rooms.gates.add),
        (None, "GET", "/v1/goldens", rooms.gates.list),
        ("promote", "DELETE", "/v1/goldens/{golden_id}", rooms.gates.remove),
        ("promote", "POST", "/v1/releases/{release_id}/goldens", rooms.gates.run),
        (None, "GET", "/v1/releases/{release_id}/gates", rooms.gates.results),
        *_of_shadows(rooms.shadows),
        ("promote", "DELETE", "/v1/endpoints/{owner}/{endpoint}", rooms.withdrawal.endpoint),
        ("promote", "DELETE", "/v1/deployments/{deployment_id}", rooms.withdrawal.deployment),
        (None, "GET", "/v1/tags", releases.tags),
        (None, "GET", "/v1/endpoints/{owner}/{endpoint}/functions/{function}/tags/{tag}", releases.tag),
        ("promote", "PUT", "/v1/endpoints/{owner}/{endpoint}/functions/{function}/tags/{tag}", releases.move),
        ("publish", "GET", "/v1/endpoints/{owner}/{endpoint}/secrets", rooms.secrets.list),
        ("publish", "PUT", "/v1/endpoints/{owner}/{endpoint}/secrets/{name}", rooms.secrets.put),
        ("publish", "DELETE", "/v1/endpoints/{owner}/{endpoint}/secrets/{name}", rooms.secrets.remove),
        ("publish", "POST", "/v1/endpoints/publish", builds.publish),
        ("publish", "GET", "/v1/builds", builds.list),
        ("publish", "GET", "/v1/builds/{build_id}", builds.get),
        ("publish", "GET", "/v1/builds/{build_id}/logs", builds.logs),
        ("publish", "POST", "/v1/builds/{build_id}/cancel", builds.cancel),
        *(("invoke", *route) for route in cog_routes(cog)),  # before the model routes, whose paths would match them
        (None, "GET", "/v1/models", of_task.list),
        (None, "GET", "/v1/models/{owner}/{endpoint}/{function}", of_task.get),
        (None, "GET", "/v1/repos", models.list),
        ("admin", "POST", "/v1/repos/gc", models.collect),
        (None, "GET", "/v1/models/{owner}/{repo}", models.get),
        ("publish", "DELETE", "/v1/models/{owner}/{repo}", models.remove),
        ("publish", "PUT", "/v1/models/{owner}/{repo}/tags/{tag}", models.push),
        ("publish", "DELETE", "/v1/models/{owner}/{repo}/tags/{tag}", models.remove),
        ("publish", "PUT", "/v1/blobs/{digest}", models.put_blob),
        ("invoke", "GET", "/v1/files", rooms.caller_files.list),
        (None, "GET", "/v1/me", keys.me),
        ("admin", "GET", "/v1/keys", keys.list),
        ("admin", "POST", "/v1/keys", keys.create),
        ("admin", "PATCH", "/v1/keys/{key_id}", keys.change),
        ("admin", "DELETE", "/v1/keys/{key_id}", keys.revoke),
        ("admin", "GET", "/v1/audit", keys.audit),
        ("admin", "GET", "/v1/signing-keys", rooms.signing_keys.list),
        ("admin", "POST", "/v1/signing-keys", rooms.signing_keys.rotate),
        (None, "GET", "/v1/usage", rooms.usage.usage),
        ("admin", "GET", "/metrics", admin.metrics),
        ("admin", "GET", "/v1/disk", rooms.disk.get),
        (None, "GET", "/openapi.json", admin.openapi),
        *_of_public_cozyctl(rooms.deploys),
        ("invoke", "POST", "/mcp", McpDoor(rooms.catalog, Runs(inside)).post),
        *(("invoke", *route) for route in openai_routes(rooms.catalog, Runs(inside), Files(inside))),
    ]
    of_workers: Sequence[tuple[str, str, Handler]] = [
        ("POST", "/api/v1/public/models/request", models.request_public),
        ("POST", "/api/v1/repos/{owner}/{repo}/resolve_artifact", models.resolve_artifact),
        ("GET", "/api/v1/repos/{owner}/{repo}/snapshots/{digest}/manifest", models.snapshot),
    ]
    of_signed: Sequence[tuple[Scope | None, str, str, Handler]] = [
        (None, "GET", "/v1/files/{owner}/{ref:path}", rooms.caller_files.get),
        ("invoke", "PUT", "/v1/files/{owner}/{ref:path}", rooms.caller_files.put),
        ("invoke", "POST", "/v1/files/{owner}/{ref:path}", rooms.caller_files.post),
        ("invoke", "DELETE", "/v1/files/{owner}/{ref:path}", rooms.caller_files.remove),
    ]
    # Open to all, or protected by their own tokens and signatures.
    plain: Sequence[tuple[str, str, Handler]] = [
        ("GET", "/v1/blobs/{digest}", models.get_blob),
        ("GET", "/api/v1/file/{ref:path}", files.read),
        ("PUT", "/api/v1/file/{ref:path}", files.put),
        ("POST", "/api/v1/file/{ref:path}", files.post),
        ("POST", CHILDREN_ROUTE, rooms.children.create),
        ("POST", CANCEL_ROUTE, rooms.children.cancel),
        ("GET", "/livez", admin.livez),
        ("GET", "/.well-known/jwks.json", workers.jwks),
        ("GET", "/readyz", admin.readyz),
        ("GET", "/health-check", cog.health),
        ("GET", "/", page.answer),
        ("GET", "/docs", page.answer),
        ("GET", "/docs/{name}", page.answer),
    ]
    routes = [
        *((method, path, guard(scope, handler)) for scope, method, path, handler in asked),
        *((method, path, guard(scope, handler, rooms.caller_files.signed)) for scope, method, path, handler in of_signed),
        *((method, path, guard(None, handler, worker_of)) for method, path, handler in of_workers),
        ("POST", "/api/v1/auth/password/login", rooms.deploys.login),
        *plain,
        ("GET", OF_FUNCTIONS, guard("invoke", rooms.sessions.open)),
        ("POST", OF_FUNCTIONS, invoke),  # last, because it matches other paths, too
    ]
    front = _Front(
        Endpoint(invoke, on_error, hosts),
        build_router(only_known(routes, names_in(own_paths())), on_error, hosts, {OF_FUNCTIONS: RESERVED}),
    )
    return front


def _of_shadows(shadows: ShadowRoutes) -> list[tuple[Scope | None, str, str, Handler]]:
    path = "/v1/endpoints/{owner}/{endpoint}/functions/{function}/tags/{tag}/shadow"
    return [
        (None, "GET", "/v1/shadows", shadows.list),
        (None, "GET", path, shadows.get),
        ("promote", "PUT", path, shadows.start),
        ("promote", "DELETE", path, shadows.stop),
    ]


def _of_public_cozyctl(deploys: DeployRoutes) -> list[tuple[Scope | None, str, str, Handler]]:
    return [
        (None, "GET", "/api/v1/auth/me", deploys.me),
        (None, "GET", "/api/v1/auth/user/me", deploys.user),
        ("publish", "PUT", "/api/v1/file/builds/{project}/{name}", deploys.put_archive),
        ("publish", "POST", "/api/v1/builds", deploys.build),
        ("publish", "GET", "/api/v1/builds/{build_id}", deploys.get_build),
        ("publish", "GET", "/api/v1/builds/{build_id}/logs", deploys.build_logs),
        ("promote", "POST", "/api/v1/builds/{build_id}/deploy", deploys.deploy),
        (None, "GET", "/api/v1/deployments/{deployment_id}", deploys.get),
        (None, "GET", "/v1/deployments", deploys.list),
        ("promote", "POST", "/v1/deployments", deploys.create),
        (None, "GET", "/v1/deployments/{deployment_id}", deploys.get),
        ("promote", "PUT", "/v1/deployments/{deployment_id}", deploys.create),
    ]


class _Front:
    """`POST /v1/owner/endpoint/function` bypasses the router's search, because it is the busiest route."""

    def __init__(self, invoke: Endpoint, router: ASGIApp) -> None:
        self._invoke = invoke
        self._router = router

    async def __call__(self, scope: types.Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"].startswith("/v1/"):
            parts = scope["path"].split("/")
            if len(parts) == 5 and parts[2] not in RESERVED and all(parts[2:]):
                scope["path_params"] = {"owner": parts[2], "endpoint": parts[3], "function": parts[4]}
                await self._invoke(scope, receive, send)
                return
        await self._router(scope, receive, send)
