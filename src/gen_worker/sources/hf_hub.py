"""Requests to Hugging Face before a download: the listing of a repository, small files, the headers of weights. Blocking."""

import re
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

from gen_worker.clock import Clock
from gen_worker.content.listing import Listing, RemoteFile
from gen_worker.errors import FatalError, MissingExtraError, RetryableError
from gen_worker.net.range_client import Link, RangeClient
from gen_worker.net.retry import PASSING, HttpError, PassingError, Wait, asked_s
from gen_worker.net.wanted import DownloadCanceledError
from gen_worker.refs import HuggingFaceRef
from gen_worker.sources.hf_account import HfAccount, Token
from gen_worker.sources.weight_files import header_size

T = TypeVar("T")
_COMMIT = re.compile(r"[0-9a-f]{40}")
FIRST_HEADER_BYTES = 64 << 10
LISTING_TIMEOUT_S = 30.0


class HfHub:
    """One endpoint, used as one account. Each request is retried by the client's policy."""

    def __init__(self, account: HfAccount, client: RangeClient) -> None:
        self._account = account
        self._client = client

    def listing(self, ref: HuggingFaceRef, key: str, wait: Wait) -> Listing:
        """The files of a repository; the listing's digest is the commit. `FatalError` when it cannot be had,
        `RetryableError` when another try may help. `key`: the model's name in cozy.toml, for messages.
        """
        name, token, endpoint = ref.canonical(), self._account.token(), self._account.endpoint
        try:
            info = self._client.retries.call(lambda: _model_info(ref, endpoint, token, self._client.retries.clock), wait)
        except HttpError as exc:
            raise RetryableError(f"{name}: no listing: {exc}") from exc
        except PassingError as exc:
            raise RetryableError(
                f"{name}: no listing from {_host(endpoint)}: {exc}. It is not on this machine; without a network, map it to a "
                f"local folder: --model {key}=FOLDER, or COZY_MODEL_OVERRIDES={key}=FOLDER"
            ) from exc
        if not _COMMIT.fullmatch(str(info.sha)):  # it becomes the name of a folder
            raise FatalError(
                f"{name}: the listing of {_host(endpoint)} names the commit {str(info.sha)[:80]!r}, expected 40 hexadecimal digits"
            )
        files = []
        for sibling in info.siblings or ():
            lfs = sibling.lfs
            digest = f"sha256:{lfs.sha256}" if lfs else f"git-sha1:{sibling.blob_id}" if sibling.blob_id else ""
            size_bytes = lfs.size if lfs else sibling.size
            if not isinstance(sibling.rfilename, str) or not isinstance(size_bytes or 0, int):
                raise FatalError(
                    f"{name}: the listing of {_host(endpoint)} has a file {str(sibling.rfilename)[:80]!r} of size {size_bytes!r}"
                )
            files.append(RemoteFile(sibling.rfilename, size_bytes or 0, digest))
        return Listing(str(info.sha), tuple(files))

    def address(self, ref: HuggingFaceRef, commit: str) -> Callable[[str], Link]:
        """The URL under which the files of a commit are, by path."""
        token = self._account.token()
        headers = {"authorization": f"Bearer {token.value}"} if token.value else {}
        base = f"{self._account.endpoint}/{quote(ref.repo_id)}/resolve/{commit}"
        return lambda path: Link(f"{base}/{quote(path)}", headers)

    def read(self, link: Link, most_bytes: int, wait: Wait) -> bytes:
        """A small file, or its beginning; `HttpError` and `PassingError` after the last try."""
        try:
            return self._client.retries.call(lambda: self._client.read(link, most_bytes), wait)
        except HttpError as exc:
            if exc.status in (401, 403):
                raise FatalError(f"{exc}. {_refused(self._account.token())}") from exc
            raise

    def read_header(self, link: Link, size_bytes: int, wait: Wait) -> bytes:
        """The beginning of a safetensors file: at least its header."""
        data = self.read(link, min(FIRST_HEADER_BYTES, size_bytes), wait)
        size = 8 + header_size(data, size_bytes)
        return data if len(data) >= size else self.read(link, size, wait)


def until_cancelled(work: Callable[[], T], cancel: threading.Event) -> T:
    """The result of `work`, which only reads. `DownloadCanceledError` as soon as `cancel` is set; `work` then ends by
    its own timeouts.
    """
    done = threading.Event()
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as exc:  # noqa: BLE001 - raised below, in the thread that waits
            errors.append(exc)
        finally:
            done.set()

    threading.Thread(target=run, name="model-plan", daemon=True).start()
    while not done.wait(0.05):
        if cancel.is_set():
            raise DownloadCanceledError("cancelled while the files were looked up")
    if errors:
        raise errors[0]
    return results[0]


def _model_info(ref: HuggingFaceRef, endpoint: str, token: Token, clock: Clock) -> Any:
    """One request. `HttpError` and `PassingError` for temporary errors, `FatalError` for permanent ones."""
    hub = _huggingface_hub()
    name = ref.canonical()
    try:
        api = hub.HfApi(endpoint=endpoint, token=token.value or False)
        return api.model_info(ref.repo_id, revision=ref.revision, files_metadata=True, timeout=LISTING_TIMEOUT_S)
    except hub.errors.GatedRepoError as exc:
        raise FatalError(f"{name} is gated: accept its terms on its page. {_refused(token)}") from exc
    except hub.errors.RevisionNotFoundError as exc:
        raise FatalError(f"{name}: the repository has no revision {ref.revision!r}") from exc
    except hub.errors.RepositoryNotFoundError as exc:
        hint = f"The account is that of {token.source}" if token.value else "If it is private, set HF_TOKEN, or use: hf auth login"
        raise FatalError(f"{name}: no such repository for this account; check its name. {hint}") from exc
    except hub.errors.HfHubHTTPError as exc:
        status = int(getattr(exc.response, "status_code", 0))
        headers: Mapping[str, str] = {str(name).lower(): str(value) for name, value in getattr(exc.response, "headers", {}).items()}
        if status in PASSING:
            raise HttpError(status, _host(endpoint), asked_s(status, headers, clock)) from exc
        if status == 404:
            raise FatalError(f"{name}: no such repository at {_host(endpoint)}; check its name") from exc
        if status in (401, 403):
            said = headers.get("x-error-message", "")[:200]
            raise FatalError(f"{name}: {_host(endpoint)} answered HTTP {status}{': ' if said else ''}{said}. {_refused(token)}") from exc
        kind = FatalError if 400 <= status < 500 else RetryableError
        raise kind(f"{name}: the listing was refused with HTTP {status}") from exc
    except hub.errors.HFValidationError as exc:
        raise FatalError(f"{name}: {exc}") from exc
    except Exception as exc:
        # No answer at all: OSError, or an error of the HTTP client that this version of the library uses.
        # the answer is not a listing; it may come from a proxy, for example
        if isinstance(exc, (ValueError, TypeError, KeyError, AttributeError)):
            raise PassingError(f"an answer that is not a listing ({type(exc).__name__}: {exc})") from exc
        if not isinstance(exc, OSError) and not type(exc).__module__.startswith(("httpx", "httpcore", "requests")):
            raise
        raise PassingError(f"{type(exc).__name__}: {exc}") from exc


def _refused(token: Token) -> str:
    if not token.value:
        return "Set HF_TOKEN to a token of that account, or use: hf auth login"
    return f"The refused token comes from {token.source}; set HF_TOKEN to one that may read this repository"


def _huggingface_hub() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as exc:
        raise MissingExtraError("huggingface_hub", "hf", "downloading hf: models") from exc
    return huggingface_hub


def _host(endpoint: str) -> str:
    return endpoint.partition("//")[2]
