"""The control plane's HTTP API for the verbs: JSON in and out, errors as exit statuses."""

import io
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

import click
import msgspec
import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError

from gen_worker.cli.output import EXIT_AUTH, EXIT_FAILED, EXIT_NOT_FOUND, EXIT_TIMEOUT, EXIT_USAGE, Verb, fail, say
from gen_worker.client import Client, GatewayError
from gen_worker.client.address import words_of_system
from gen_worker.client.answers import is_starting
from gen_worker.client.effects import Answer
from gen_worker.client.profiles import Profile, ProfileError, Profiles
from gen_worker.client.tries import Patience

DEFAULT_OWNER = "local"
DEFAULT_URL = "http://127.0.0.1:8080"
CONNECT_TIMEOUT_S = 5.0
START_PAUSE_S = 0.5
READ_TIMEOUT_S = 3700.0  # the server sends something every 15 s while a run is working


def _default_url() -> str:
    found = _profile()
    return (found.orchestrator_url if found is not None else "") or DEFAULT_URL


def _profile() -> Profile | None:
    profiles = Profiles.of_user(os.environ)
    try:
        return profiles.read(*profiles.current())
    except ProfileError as exc:
        raise click.UsageError(f"COZY_PROFILE: {exc}") from None


url_option = click.option(
    "--url",
    default=_default_url,
    envvar="COZY_URL",
    show_default=f"the profile's, else {DEFAULT_URL}",
    metavar="URL",
    help="The control plane. Also COZY_URL.",
)
_STATUSES = {400: EXIT_USAGE, 422: EXIT_USAGE, 401: EXIT_AUTH, 403: EXIT_AUTH, 404: EXIT_NOT_FOUND, 504: EXIT_TIMEOUT}


class ApiError(Exception):
    """The control plane refused, or did not answer. `status` is the exit status of the verb."""

    def __init__(self, message: str, status: int, code: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def report(self, *, as_json: bool) -> int:
        """Print the error as text or JSON; returns the exit status."""
        return fail(str(self), self.status, as_json=as_json, code=self.code)


class ApiVerb(Verb):
    """A verb that calls the control plane. An `ApiError` that it does not handle is printed as text or JSON."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ApiError as exc:
            return exc.report(as_json=ctx.params.get("as_json", False))
        except GatewayError as exc:
            text = _with_hint(exc.detail, exc.hint)
            facts = {"run_id": exc.run_id} if exc.run_id else {}
            status = _STATUSES.get(exc.status, EXIT_FAILED)
            return fail(text, status, as_json=ctx.params.get("as_json", False), code=exc.code, **facts)


def _with_hint(detail: str, hint: str) -> str:
    """Both as sentences. A hint may begin with a command, whose first letter must stay."""
    if not hint:
        return detail
    is_command = hint.partition(" ")[0] in ("cozyctl", "gen-orchestrator")
    return f"{detail.removesuffix('.')}. {hint if is_command else hint[0].upper() + hint[1:]}"


class Api:
    """One control plane. Blocking. `key`: by default COZY_API_KEY, or the profile's if it is for this address. `starting_s`: how long
    to wait for a platform that is starting; it has not acted on what it refuses then.
    """

    def __init__(self, url: str, key: str | None = None, *, starting_s: float = Patience().starting_s) -> None:
        self._url = url.rstrip("/")
        self._starting_s = starting_s
        if not self._url.startswith(("http://", "https://")):
            raise ApiError(
                f"the platform's address is {url!r}; expected one such as {DEFAULT_URL} (--url, or COZY_URL)", EXIT_USAGE, "usage"
            )
        self._pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S), retries=False)
        if key is None:
            key = os.environ.get("COZY_API_KEY", "") or self._key_of_profile()
        self._key = key
        self._headers = {"authorization": f"Bearer {key}"} if key else {}

    def _key_of_profile(self) -> str:
        found = _profile()
        return found.token if found is not None and found.orchestrator_url.rstrip("/") == self._url else ""

    def get(self, path: str, **query: Any) -> Any:
        return self._json("GET", path, query=query)

    def status(self) -> dict[str, Any]:
        """What the platform serves, what is waiting, and its workers."""
        found = self.get("/v1/status")
        if not isinstance(found, dict) or not {"lanes", "workers", "tags"} <= found.keys():
            raise self._no_platform("its GET /v1/status has another format. It is a dev runner (cozyctl dev), or older than this cozyctl")
        return found

    def run(self, run_id: str) -> dict[str, Any]:
        """The run's current state."""
        found: dict[str, Any] = self.get(api_path("runs", run_id))
        return found

    def post(self, path: str, body: Any = None, headers: dict[str, str] | None = None, **query: Any) -> Any:
        return self._json("POST", path, body, headers, query)

    def put(self, path: str, body: Any = None, **query: Any) -> Any:
        return self._json("PUT", path, body, None, query)

    def patch(self, path: str, body: Any) -> Any:
        return self._json("PATCH", path, body)

    def delete(self, path: str) -> Any:
        return self._json("DELETE", path)

    def send(self, method: str, path: str, file: IO[bytes], kind: str, **query: Any) -> Any:
        """Send a file's bytes."""
        return self._json(method, path, file, {"content-type": kind}, query)

    @contextmanager
    def download(self, path: str) -> Iterator[IO[bytes]]:
        """The bytes of a file as they arrive. `ApiError` also when they stop early."""
        answer = self._ask("GET", path, None, {}, {})
        try:
            if answer.status >= 300:
                raise self._refused(answer.status, answer.read(), "GET", path)
            yield cast(IO[bytes], answer)
        except HTTPError as exc:
            raise ApiError(f"the download stopped early: {_why(exc)}; ask again", EXIT_FAILED, "unreachable") from None
        finally:
            answer.close()

    def owner(self) -> str:
        """The key's owner; for a key that sees all owners, the platforms' default one."""
        found = str(self.get("/v1/me")["owner"])
        return DEFAULT_OWNER if found == "*" else found

    def client(self, on_pause: Callable[[float, GatewayError], object] | None = None) -> Client:
        """The public client: runs with their events, across lost connections. `on_pause` is called for each wait."""
        return Client(self._url, key=self._key, patience=Patience(on_pause=on_pause))

    def _json(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, query: dict[str, Any] | None = None
    ) -> Any:
        answer = self._ask(method, path, body, headers or {}, query or {})
        data = answer.read()
        if answer.status >= 300 and not _is_run(data):
            raise self._refused(answer.status, data, method, path)
        try:
            return json.loads(data) if data else None
        except ValueError:
            raise self._no_platform(f"it answers {method} {path} without JSON") from None

    def _ask(self, method: str, path: str, body: Any, headers: dict[str, str], query: dict[str, Any]) -> urllib3.BaseHTTPResponse:
        began_s = time.monotonic()
        while (answer := self._ask_once(method, path, body, headers, query)).status == 503:
            data = answer.read()
            waited_s = time.monotonic() - began_s
            can_repeat = not hasattr(body, "read") or body.seekable()
            if waited_s > self._starting_s or not can_repeat or not is_starting(Answer(503, {}, data)):
                return urllib3.HTTPResponse(io.BytesIO(data), answer.headers, 503, preload_content=False)
            if waited_s < START_PAUSE_S:
                _say_starting(self._url)
            time.sleep(START_PAUSE_S)
            if hasattr(body, "read"):
                body.seek(0)
        return answer

    def _ask_once(self, method: str, path: str, body: Any, headers: dict[str, str], query: dict[str, Any]) -> urllib3.BaseHTTPResponse:
        fields = {name: str(value) for name, value in query.items() if value not in (None, "")}
        suffix = "?" + "&".join(f"{name}={quoted(value)}" for name, value in fields.items()) if fields else ""
        content = {"content-type": "application/json"} if body is not None else {}
        is_file = hasattr(body, "read")
        try:
            return self._pool.request(
                method,
                f"{self._url}{path}{suffix}",
                body=body if is_file or body is None else msgspec.json.encode(body),
                headers={**self._headers, **content, **headers},
                preload_content=False,
            )
        except HTTPError as exc:
            hint = (
                "is it running? Start it with: cozyctl up"
                if "127.0.0.1" in self._url or "localhost" in self._url
                else "is the address right?"
            )
            why = f"no control plane answers at {self._url}: {_why(exc)}; {hint} (another address: --url, or COZY_URL)"
            raise ApiError(why, EXIT_FAILED, "unreachable") from None

    def _refused(self, status: int, data: bytes, method: str, path: str) -> ApiError:
        try:
            problem = json.loads(data)
            text, code = str(problem["detail"]), str(problem["code"])
        except (ValueError, KeyError, TypeError):
            return self._no_platform(f"it answers {method} {path} with status {status}, unlike a platform")
        # An unknown path, not a missing thing: those answers have an `error`. A name with a slash matches no path.
        if code == "not_found" and "error" not in problem and "%2F" not in path:
            return self._no_platform(f"it has no {method} {path}. It is a dev runner (cozyctl dev), or older than this cozyctl")
        if hint := problem.get("cli_hint") or problem.get("hint"):
            text = _with_hint(text, hint)
        return ApiError(text, _STATUSES.get(status, EXIT_FAILED), code)

    def _no_platform(self, why: str) -> ApiError:
        start = "Start one with: cozyctl up (another address: --url, or COZY_URL)"
        return ApiError(f"{self._url} is not a platform: {why}. {start}", EXIT_FAILED, "unexpected")


def _say_starting(url: str) -> None:
    verb = click.get_current_context(silent=True)
    if verb is None or not verb.params.get("as_json"):
        say(f"the platform at {url} is starting; waiting until it serves")


def _why(exc: BaseException) -> str:
    """Why a server could not be reached, in the system's words if possible."""
    if words := words_of_system(exc):
        return words
    return f"no answer within {CONNECT_TIMEOUT_S:.0f} s" if isinstance(exc, ConnectTimeoutError) else str(exc) or type(exc).__name__


def _is_run(data: bytes) -> bool:
    return data.startswith(b'{"id"')


def api_path(*parts: str) -> str:
    """`/v1/PART/PART/...`. Each part is one name, whatever it contains: a slash or a question mark in it has no meaning."""
    if not all(parts):
        raise ApiError(f"an empty name in {'/'.join(parts)}; expected an id or a name", EXIT_USAGE, "usage")
    # Dots alone would mean a parent folder, and quoting does not prevent that.
    return "/v1/" + "/".join(part.replace(".", "%2E") if not part.strip(".") else quoted(part) for part in parts)


def quoted(value: str) -> str:
    """A value as one part of a path, whatever it contains."""
    from urllib.parse import quote

    return quote(value, safe="")
