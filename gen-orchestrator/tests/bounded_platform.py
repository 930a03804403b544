"""A platform that requires keys, and helpers for callers with different keys."""

import asyncio
from typing import Any

import httpx
from platform_process import PlatformProcess

CLIENTS = 64


class Bounded:
    """A platform that asks for keys, and keys with budgets."""

    def __init__(self, platform: PlatformProcess) -> None:
        self.platform = platform
        self.operator = (platform.data / "operator.key").read_text().strip()

    def ask(self, key: str, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {**options.pop("headers", {}), "authorization": f"Bearer {key}"}
        return self.platform.http.request(method, path, headers=headers, **options)

    def make(self, *scopes: str, owner: str = "local", **budgets: Any) -> dict[str, Any]:
        answer = self.ask(self.operator, "POST", "/v1/keys", json={"owner": owner, "scopes": scopes or ("invoke",), **budgets})
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def run(self, key: str, function: str = "echo", payload: dict[str, Any] | None = None, **headers: str) -> httpx.Response:
        return self.ask(key, "POST", f"/v1/local/probe/{function}", json={"payload": payload or {}}, headers=headers)

    def start(self, key: str, seconds: float = 600) -> httpx.Response:
        """A run that nobody waits for."""
        return self.run(key, "sleep", {"seconds": seconds}, prefer="respond-async")

    def used(self, key_id: str) -> dict[str, Any]:
        keys = self.ask(self.operator, "GET", "/v1/keys").json()["data"]
        found: dict[str, Any] = next(key["used"] for key in keys if key["key_id"] == key_id)
        return found

    def cancel_all(self, key: str) -> None:
        for run in self.ask(key, "GET", "/v1/runs", params={"limit": 500}).json()["data"]:
            if run["status"] in ("queued", "starting", "running"):
                self.ask(key, "POST", f"/v1/runs/{run['id']}/cancel")

    def race(self, key: str, function: str, payload: dict[str, Any], **headers: str) -> list[httpx.Response]:
        """The same request of many clients at the same moment."""

        async def all_at_once() -> list[httpx.Response]:
            url, limits = f"{self.platform.url}/v1/local/probe/{function}", httpx.Limits(max_connections=CLIENTS)
            sent = {**headers, "authorization": f"Bearer {key}"}
            async with httpx.AsyncClient(limits=limits, timeout=300, trust_env=False) as http:
                asked = (http.post(url, json={"payload": payload}, headers=sent) for _ in range(CLIENTS))
                return list(await asyncio.gather(*asked))

        return asyncio.run(all_at_once())
