"""Saves a run's files like its worker."""

import time

import httpx
from platform_process import PlatformProcess

from gen_orchestrator.auth.folder_keys import folder_key
from gen_orchestrator.hub.files import FileToken, FileTokens
from gen_orchestrator.term import FILE_KEY


def token_of(platform: PlatformProcess, run_id: str, attempt: int) -> dict[str, str]:
    """The headers that this attempt's worker saves with."""
    tokens = FileTokens(folder_key(platform.data / FILE_KEY, lambda: b""), time.time)
    return {"authorization": f"Bearer {tokens.issue(FileToken('local', run_id, attempt))}"}


def save(platform: PlatformProcess, run_id: str, attempt: int, text: str, method: str = "PUT") -> httpx.Response:
    url = f"/api/v1/file/runs/{run_id}/outputs/note.txt"
    return platform.http.request(method, url, content=text, headers=token_of(platform, run_id, attempt))
