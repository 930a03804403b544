"""`hf:` refs: huggingface_hub lists, our downloader fetches, and the files land where other Hugging Face tools look for them. Blocking.

`<cache>/models--<owner>--<repo>/{blobs/<etag>, snapshots/<commit>/<path> -> blob, refs/<revision>}`. What is complete there is used
without asking the network.
"""

import hashlib
import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from gen_worker.content.blobs import fetch_blobs, is_present
from gen_worker.content.disk import admit, has_size, missing_bytes
from gen_worker.content.listing import Listing, RemoteFile, checked_listing
from gen_worker.content.progress import Progress
from gen_worker.errors import FatalError, MissingExtraError, RetryableError
from gen_worker.net.range_client import HttpError, Link, RangeClient
from gen_worker.net.wanted import Policy, Wanted
from gen_worker.refs import DEFAULT_DTYPES, HuggingFaceRef, ModelSpec, parse_model_ref
from gen_worker.settings import ModelSettings, is_true, split_list
from gen_worker.sources.file_plan import OPTIONAL_COMPONENTS, FilePlan, Knowledge, Needs, PlanError, SelectionPolicy, plan_files
from gen_worker.sources.source import LocalModel, ModelWant
from gen_worker.sources.weight_files import HeaderError, header_size, precision_of, read_header

FIRST_HEADER_BYTES = 64 << 10
MAX_DOCUMENT_BYTES = 32 << 20
_COMMIT = re.compile(r"[0-9a-f]{40}")
DEFAULT_ENDPOINT = "https://huggingface.co"


class HfPlan(msgspec.Struct, frozen=True):
    """What a ref needs: the commit, the plan, and the files with sizes and digests."""

    commit: str
    plan: FilePlan
    listing: Listing


class HfSource:
    """One cache folder and one endpoint."""

    def __init__(self, settings: ModelSettings, client: RangeClient, policy: Policy) -> None:
        self._settings = settings
        self._client = client
        self._policy = policy
        self._cache = settings.hf_cache
        self._records = Path(settings.tensorhub_cache_dir).expanduser() / "hf"
        self._endpoint = (settings.hf_endpoint or DEFAULT_ENDPOINT).rstrip("/")
        self._token = settings.any_hf_token
        self.on_blob: Callable[[Path], None] = lambda path: None  # as of `Cas`

    def present(self, want: ModelWant) -> LocalModel | None:
        ref = _hf_ref(want.spec.ref)
        commit = self._known_commit(ref)
        if commit is None:
            return None
        snapshot = self._folder(ref) / "snapshots" / commit
        selection = selection_policy(self._settings, want.spec)
        record = self._record(ref, commit, selection)
        try:
            listing = msgspec.json.decode(record.read_bytes(), type=Listing)
        except (OSError, msgspec.DecodeError):
            # What was fetched here under other settings is a part of the repository, and no ground to plan on.
            found = None if list(record.parent.glob(f"{commit}-*")) else local_plan(snapshot, selection)
            if found is None:
                return None
            listing = Listing(commit, tuple(RemoteFile(path, (snapshot / path).stat().st_size) for path in found.files))
        if not all(has_size(snapshot / file.path, file.size_bytes) for file in listing.files):
            return None
        return _local(want.model_id, snapshot, listing, 0)

    def fetch(self, want: ModelWant, progress: Progress, cancel: threading.Event) -> LocalModel:
        if is_true(self._settings.hf_hub_offline):
            raise FatalError(
                f"{want.model_id} is not complete in the Hugging Face cache, and HF_HUB_OFFLINE is set; fetch it once without it"
            )
        progress.begin("resolving")
        ref = _hf_ref(want.spec.ref)
        found = self.plan(want.spec, want.key)
        folder, listing = self._folder(ref), found.listing
        wanted = {file.digest: self._wanted(ref, found.commit, folder, file) for file in listing.files}
        missing = [file for file in wanted.values() if not is_present(file)]
        need, growth = missing_bytes({file.path: file.size_bytes for file in missing})
        total = sum(file.size_bytes for file in wanted.values())
        admit(folder, growth, round(self._settings.worker_min_free_disk_gb * 1e9), want.model_id)
        progress.begin("downloading", total)
        progress.add(total - need)
        locks = self._cache / ".locks" / folder.name
        fetched = fetch_blobs(missing, locks, self._client, self._policy, progress, cancel, self.on_blob)
        snapshot = folder / "snapshots" / found.commit
        for file in listing.files:
            _link(_blob_path(folder, file), snapshot / file.path)
        if ref.revision != found.commit:
            _write_whole(folder / "refs" / (ref.revision or "main"), found.commit.encode())
        record = self._record(ref, found.commit, selection_policy(self._settings, want.spec))
        _write_whole(record, msgspec.json.encode(listing))
        return _local(want.model_id, snapshot, listing, fetched)

    def plan(self, spec: ModelSpec, key: str) -> HfPlan:
        """What would be fetched. Reads the listing, small JSON files and the headers of weights; `FatalError` when nothing fits."""
        ref = _hf_ref(spec.ref)
        commit, files = self._list(ref, key)
        checked = checked_listing(Listing(commit, files), ref.canonical())
        by_path = {file.path: file for file in checked.files}
        plan = gather(
            {path: file.size_bytes for path, file in by_path.items()},
            selection_policy(self._settings, spec),
            lambda path: self._client.read(self._link(ref, commit, path), MAX_DOCUMENT_BYTES),
            lambda path: self._read_header(ref, commit, by_path[path]),
            ref.canonical(),
        )
        return HfPlan(commit, plan, Listing(commit, tuple(by_path[path] for path in plan.files)))

    def blob_path(self, spec: ModelSpec, file: RemoteFile) -> Path:
        """Where this file's content is in the cache, once it is there."""
        return _blob_path(self._folder(_hf_ref(spec.ref)), file)

    def inventory(self) -> Iterator[tuple[str, Path, Listing]]:
        """What was fetched here and is complete: `hf:owner/repo@commit`, its folder and files."""
        for record in sorted(self._records.glob("*/*.json")):
            try:
                listing = msgspec.json.decode(record.read_bytes(), type=Listing)
            except (OSError, msgspec.DecodeError):
                continue
            snapshot = self._cache / record.parent.name / "snapshots" / listing.digest
            if all(has_size(snapshot / file.path, file.size_bytes) for file in listing.files):
                yield f"hf:{record.parent.name.removeprefix('models--').replace('--', '/', 1)}@{listing.digest}", snapshot, listing

    def forget(self, snapshot: Path) -> int:
        """Remove a snapshot, its record, and the blobs that no other snapshot links to; bytes freed."""
        folder = snapshot.parent.parent
        for record in (self._records / folder.name).glob(f"{snapshot.name}-*.json"):
            record.unlink(missing_ok=True)
        shutil.rmtree(snapshot, ignore_errors=True)
        linked = {path.resolve() for path in (folder / "snapshots").rglob("*") if path.is_symlink()}
        freed = 0
        for blob in (folder / "blobs").glob("*"):
            if blob.resolve() not in linked:
                freed += blob.stat().st_size
                blob.unlink(missing_ok=True)
        return freed

    def _list(self, ref: HuggingFaceRef, key: str) -> tuple[str, tuple[RemoteFile, ...]]:
        hub = _huggingface_hub()
        name = ref.canonical()
        try:
            api = hub.HfApi(endpoint=self._endpoint, token=self._token or False)
            info = api.model_info(ref.repo_id, revision=ref.revision, files_metadata=True, timeout=30)
        except hub.errors.GatedRepoError as exc:
            raise FatalError(f"{name} is gated: accept its terms on its page, and set HF_TOKEN to a token of that account") from exc
        except hub.errors.RevisionNotFoundError as exc:
            raise FatalError(f"{name}: the repository has no revision {ref.revision!r}") from exc
        except hub.errors.RepositoryNotFoundError as exc:
            hint = "check its name" if self._token else "check its name; if it is private, set HF_TOKEN"
            raise FatalError(f"{name}: no such repository for this account; {hint}") from exc
        except hub.errors.HfHubHTTPError as exc:
            status = getattr(exc.response, "status_code", 0)
            if status == 404:
                raise FatalError(f"{name}: no such repository at {self._endpoint.partition('//')[2]}; check its name") from exc
            kind = FatalError if 400 <= status < 500 and status not in (408, 425, 429) else RetryableError
            raise kind(f"{name}: the listing was refused with HTTP {status}") from exc
        except Exception as exc:
            # No answer at all: OSError, or an error of whatever HTTP client the library's version uses.
            if not isinstance(exc, OSError) and not type(exc).__module__.startswith(("httpx", "httpcore", "requests")):
                raise
            host = self._endpoint.partition("//")[2]
            raise RetryableError(
                f"{name}: no listing from {host}: {type(exc).__name__}: {exc}. It is not on this machine; without a network, map it to a "
                f"local folder: --model {key}=FOLDER, or COZY_MODEL_OVERRIDES={key}=FOLDER"
            ) from exc
        files = []
        for sibling in info.siblings or ():
            lfs = sibling.lfs
            digest = f"sha256:{lfs.sha256}" if lfs else f"git-sha1:{sibling.blob_id}" if sibling.blob_id else ""
            files.append(RemoteFile(sibling.rfilename, int(lfs.size if lfs else sibling.size or 0), digest))
        return str(info.sha), tuple(files)

    def _read_header(self, ref: HuggingFaceRef, commit: str, file: RemoteFile) -> bytes:
        link = self._link(ref, commit, file.path)
        data = self._client.read(link, min(FIRST_HEADER_BYTES, file.size_bytes))
        size = 8 + header_size(data, file.size_bytes)
        return data if len(data) >= size else self._client.read(link, size)

    def _wanted(self, ref: HuggingFaceRef, commit: str, folder: Path, file: RemoteFile) -> Wanted:
        if not file.digest:
            raise FatalError(f"{ref.canonical()}: the listing names no digest for {file.path!r}")
        link = self._link(ref, commit, file.path)
        return Wanted(_blob_path(folder, file), file.size_bytes, file.digest, lambda expired: link, file.path)

    def _link(self, ref: HuggingFaceRef, commit: str, path: str) -> Link:
        headers = {"authorization": f"Bearer {self._token}"} if self._token else {}
        return Link(f"{self._endpoint}/{quote(ref.repo_id)}/resolve/{commit}/{quote(path)}", headers)

    def _folder(self, ref: HuggingFaceRef) -> Path:
        return self._cache / f"models--{ref.repo_id.replace('/', '--')}"

    def _known_commit(self, ref: HuggingFaceRef) -> str | None:
        if ref.revision and _COMMIT.fullmatch(ref.revision):
            return ref.revision
        try:
            commit = (self._folder(ref) / "refs" / (ref.revision or "main")).read_text().strip()
        except OSError:
            return None
        return commit if _COMMIT.fullmatch(commit) else None

    def _record(self, ref: HuggingFaceRef, commit: str, selection: SelectionPolicy) -> Path:
        chosen = hashlib.sha256(msgspec.json.encode(selection)).hexdigest()[:16]
        return self._records / self._folder(ref).name / f"{commit}-{chosen}.json"


def selection_policy(settings: ModelSettings, spec: ModelSpec) -> SelectionPolicy:
    """What may be taken of a repository. An author who names dtypes decides; otherwise COZY_HF_WEIGHT_PRECISIONS does."""
    listed = split_list(settings.cozy_hf_weight_precisions)
    precisions = listed if listed and tuple(spec.dtypes) == DEFAULT_DTYPES else tuple(spec.dtypes)
    if "fp8" in precisions:  # what a repository does not have in eight bits is narrowed on the device
        precisions += tuple(name for name in ("bf16", "fp16") if name not in precisions)
    return SelectionPolicy(
        precisions=precisions,
        components=split_list(settings.cozy_hf_components),
        optional_components=is_true(settings.cozy_hf_include_optional_components),
        root_json=is_true(settings.cozy_hf_allow_root_json),
        full_repo=is_true(settings.cozy_hf_full_repo_download),
        max_bytes=round(settings.cozy_hf_max_gb * 1e9),
    )


def gather(
    sizes: dict[str, int], policy: SelectionPolicy, read_document: Callable[[str], bytes], read_head: Callable[[str], bytes], name: str
) -> FilePlan:
    """Plan, reading what the plan asks for until it is whole; `FatalError` names the repository and what is wrong."""
    documents: dict[str, Any] = {}
    precisions: dict[str, str | None] = {}
    path = ""
    try:
        while isinstance(plan := plan_files(Knowledge(sizes, documents, precisions), policy), Needs):
            for path in plan.documents:
                documents[path] = msgspec.json.decode(read_document(path))
            for path in plan.headers:
                precisions[path] = precision_of(read_header(read_head(path), sizes[path]))
    except PlanError as exc:
        raise FatalError(f"{name}: {exc}") from None
    except (msgspec.DecodeError, RecursionError) as exc:
        raise FatalError(f"{name}: {path} is not JSON: {exc}") from None
    except HeaderError as exc:
        raise FatalError(f"{name}: {path}: {exc}") from None
    except HttpError as exc:
        if exc.status in (401, 403):
            raise FatalError(f"{name} refused access to {path} ({exc}): accept its terms on its page, and set HF_TOKEN") from exc
        raise
    return plan


def local_plan(snapshot: Path, policy: SelectionPolicy) -> FilePlan | None:
    """The plan of a snapshot that another tool has fetched, if everything a plan wants is there."""
    if not snapshot.is_dir():
        return None
    files = {str(path.relative_to(snapshot)): path for path in snapshot.rglob("*") if path.is_file()}
    sizes = {name: path.stat().st_size for name, path in files.items()}

    def head(name: str) -> bytes:
        with files[name].open("rb") as file:
            data = file.read(8)
            return data + file.read(header_size(data, sizes[name]))

    try:
        plan = gather(sizes, policy, lambda name: files[name].read_bytes(), head, "")
        index = msgspec.json.decode(files["model_index.json"].read_bytes()) if "model_index.json" in files else {}
    except (FatalError, OSError, HeaderError, msgspec.DecodeError):
        return None
    have = {component.name for component in plan.components}
    return plan if policy.components or _required(index) <= have else None


def _required(index: Any) -> set[str]:
    if not isinstance(index, dict):
        return set()
    named = {name for name, value in index.items() if isinstance(value, list) and value != [None, None]}
    return named - OPTIONAL_COMPONENTS


def _local(model_id: str, snapshot: Path, listing: Listing, fetched: int) -> LocalModel:
    return LocalModel(model_id, snapshot, listing.digest, {file.path: file.digest for file in listing.files if file.digest}, fetched)


def _hf_ref(text: str) -> HuggingFaceRef:
    ref = parse_model_ref(text)
    if not isinstance(ref, HuggingFaceRef):
        raise FatalError(f"model ref {text!r} is none of Hugging Face")
    return ref


def _huggingface_hub() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as exc:
        raise MissingExtraError("huggingface_hub", "hf", "downloading hf: models") from exc
    return huggingface_hub


def _blob_path(folder: Path, file: RemoteFile) -> Path:
    return folder / "blobs" / file.digest.partition(":")[2]


def _link(blob: Path, target: Path) -> None:
    """A relative link, put in place whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink() and target.exists() and target.resolve() == blob.resolve():
        return
    new = target.with_name(f".{target.name[:100]}.{secrets.token_hex(4)}")
    try:
        new.symlink_to(os.path.relpath(blob, target.parent))
    except OSError:
        os.link(blob, new)
    new.replace(target)


def _write_whole(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}.new")
    new.write_bytes(data)
    new.replace(path)
