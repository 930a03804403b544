"""Models of Hugging Face (`hf:` refs). huggingface_hub lists the files, our own downloader fetches them. Blocking.

The files are stored in Hugging Face's own cache layout. So its tools find them, and files that its tools fetched are
used here:

    <cache>/models--<owner>--<repo>/blobs/<digest>              the content
                                    snapshots/<commit>/<path>   a link to it
                                    refs/<branch or tag>        the commit that it meant when it was last looked up

Besides, `<TENSORHUB_CACHE_DIR>/hf/models--<owner>--<repo>/` has a record for each use of a snapshot: which files the
use needs. A model whose files are all here is used without a request.
"""

import hashlib
import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from gen_worker.content.blobs import drop_damaged, fetch_blobs, is_present
from gen_worker.content.disk import admit, has_size, missing_bytes
from gen_worker.content.listing import Listing, RemoteFile, checked_listing
from gen_worker.content.progress import Progress
from gen_worker.content.seals import Seals
from gen_worker.errors import FatalError
from gen_worker.net.range_client import Link, RangeClient
from gen_worker.net.wanted import DownloadFailedError, Policy, Wanted
from gen_worker.refs import DEFAULT_DTYPES, HuggingFaceRef, ModelSpec, parse_model_ref
from gen_worker.settings import ModelSettings, is_true, split_list
from gen_worker.shared_files import read_json
from gen_worker.sources.file_plan import FilePlan, SelectionPolicy
from gen_worker.sources.gather import MAX_DOCUMENT_BYTES, gather, plan_folder
from gen_worker.sources.hf_account import HfAccount
from gen_worker.sources.hf_hub import HfHub, until_cancelled
from gen_worker.sources.source import LocalModel, ModelWant

_COMMIT = re.compile(r"[0-9a-f]{40}")


class HfPlan(msgspec.Struct, frozen=True):
    """What a ref needs: the commit, the plan, and its files with sizes and digests. `repository` lists all files."""

    commit: str
    plan: FilePlan
    listing: Listing
    repository: Listing


class HfSource:
    """One cache folder and one endpoint. `on_blob` is called for each file that was fetched, as soon as it is complete."""

    def __init__(
        self,
        settings: ModelSettings,
        client: RangeClient,
        policy: Policy,
        seals: Seals | None = None,
        on_blob: Callable[[Path], None] = lambda path: None,
    ) -> None:
        self._settings = settings
        self._seals = seals or Seals(None)
        self._client = client
        self._policy = policy
        self._account = HfAccount.of(settings)
        self._hub = HfHub(self._account, client)
        self._cache = self._account.cache
        self._records = Path(settings.tensorhub_cache_dir).expanduser() / "hf"
        self._on_blob = on_blob

    def present(self, want: ModelWant) -> LocalModel | None:
        ref = _hf_ref(want.spec.ref)
        commit = self._known_commit(ref)
        if commit is None:
            return None
        snapshot = self._folder(ref) / "snapshots" / commit
        selection = selection_policy(self._settings, want)
        listing = read_json(self._record(ref, commit, selection), Listing) or self._planned_here(ref, commit, selection)
        if listing is None:
            return None
        if not all(has_size(snapshot / file.path, file.size_bytes) for file in listing.files):
            return None
        return _local(want.model_id, snapshot, listing, 0)

    def fetch(self, want: ModelWant, progress: Progress, cancel: threading.Event) -> LocalModel:
        if self._account.is_offline:
            raise FatalError(
                f"{want.model_id} is not complete in the Hugging Face cache, and HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is set; "
                "fetch it once without it"
            )
        progress.begin("resolving")
        try:
            return self._fetch(want, until_cancelled(lambda: self.plan(want, cancel), cancel), progress, cancel)
        except DownloadFailedError as exc:
            ref = _hf_ref(want.spec.ref)
            if exc.status not in (404, 410) or self._known_listing(ref) is None or ref.revision == self._known_commit(ref):
                raise
            # The version fetched here before is gone: its branch was rewritten.
            return self._fetch(want, until_cancelled(lambda: self.plan(want, cancel, anew=True), cancel), progress, cancel)

    def _fetch(self, want: ModelWant, found: HfPlan, progress: Progress, cancel: threading.Event) -> LocalModel:
        ref = _hf_ref(want.spec.ref)
        folder, listing = self._folder(ref), found.listing
        address = self._hub.address(ref, found.commit)
        wanted = {file.digest: _wanted(address, folder, file, ref.canonical()) for file in listing.files}
        drop_damaged(wanted.values(), self._seals, unsealed=False)  # files fetched by another tool are used without a check
        missing = [file for file in wanted.values() if not is_present(file)]
        need, growth = missing_bytes({file.path: file.size_bytes for file in missing})
        total = sum(file.size_bytes for file in wanted.values())
        admit(folder, growth, round(self._settings.worker_min_free_disk_gb * 1e9), want.model_id)
        progress.begin("downloading", total)
        progress.add(total - need)
        locks = self._cache / ".locks" / folder.name
        fetched = fetch_blobs(missing, locks, self._client, self._policy, progress, cancel, self._on_blob, self._seals)
        snapshot = folder / "snapshots" / found.commit
        for file in listing.files:
            _link(_blob_path(folder, file), snapshot / file.path)
        if ref.revision != found.commit:
            _write_whole(folder / "refs" / (ref.revision or "main"), found.commit.encode())
        _write_whole(self._full_record(ref, found.commit), msgspec.json.encode(found.repository))
        _write_whole(self._record(ref, found.commit, selection_policy(self._settings, want)), msgspec.json.encode(listing))
        return _local(want.model_id, snapshot, listing, fetched)

    def plan(self, want: ModelWant, cancel: threading.Event | None = None, *, anew: bool = False) -> HfPlan:
        """What would be fetched. Reads the listing, small JSON files and the headers of weights; `FatalError` when
        nothing fits.

        If other files of this ref were fetched before, the plan is for the same version, so that a model and its
        tokenizer match even when the branch has moved in between. `anew`: always plan for the newest version.
        """
        ref = _hf_ref(want.spec.ref)
        wait = (cancel or threading.Event()).wait
        listing = (None if anew else self._known_listing(ref)) or self._hub.listing(ref, want.key, wait)
        commit = listing.digest
        address = self._hub.address(ref, commit)
        checked = checked_listing(listing, ref.canonical())
        by_path = {file.path: file for file in checked.files}
        plan = gather(
            {path: file.size_bytes for path, file in by_path.items()},
            selection_policy(self._settings, want),
            lambda path: self._hub.read(address(path), MAX_DOCUMENT_BYTES, wait),
            lambda path: self._hub.read_header(address(path), by_path[path].size_bytes, wait),
            ref.canonical(),
        )
        return HfPlan(commit, plan, Listing(commit, tuple(by_path[path] for path in plan.files)), checked)

    def _known_listing(self, ref: HuggingFaceRef) -> Listing | None:
        """All files of the version that was fetched here last."""
        commit = self._known_commit(ref)
        return read_json(self._full_record(ref, commit), Listing) if commit is not None else None

    def _planned_here(self, ref: HuggingFaceRef, commit: str, selection: SelectionPolicy) -> Listing | None:
        """The files of a selection that was never fetched as such: other selections, or another tool, may have fetched all of them."""
        snapshot = self._folder(ref) / "snapshots" / commit
        whole = read_json(self._full_record(ref, commit), Listing)
        if whole is not None:
            by_path = {file.path: file for file in whole.files}
            here = {path: snapshot / path for path, file in by_path.items() if has_size(snapshot / path, file.size_bytes)}
            try:
                plan = plan_folder(here, {path: file.size_bytes for path, file in by_path.items()}, selection, ref.canonical())
            except FatalError:
                return None
            return Listing(commit, tuple(by_path[path] for path in plan.files))
        # Files fetched here under other settings are only a part of the repository, so they cannot be the basis of a plan.
        found = None if list((self._records / self._folder(ref).name).glob(f"{commit}-*")) else local_plan(snapshot, selection)
        if found is None:
            return None
        return Listing(commit, tuple(RemoteFile(path, (snapshot / path).stat().st_size) for path in found.files))

    def blob_path(self, spec: ModelSpec, file: RemoteFile) -> Path:
        """The path of this file's content in the cache, once it is there."""
        return _blob_path(self._folder(_hf_ref(spec.ref)), file)

    def inventory(self) -> Iterator[tuple[str, Path, Listing]]:
        """What was fetched here and is complete: `hf:owner/repo@commit`, its folder and files."""
        found: dict[Path, dict[str, RemoteFile]] = {}  # one snapshot may have been fetched for several uses
        for record in sorted(self._records.glob("*/*.json")):
            listing = read_json(record, Listing)
            if listing is None:
                continue
            snapshot = self._cache / record.parent.name / "snapshots" / listing.digest
            if all(has_size(snapshot / file.path, file.size_bytes) for file in listing.files):
                found.setdefault(snapshot, {}).update({file.path: file for file in listing.files})
        for snapshot, files in found.items():
            name = snapshot.parent.parent.name.removeprefix("models--").replace("--", "/", 1)
            yield f"hf:{name}@{snapshot.name}", snapshot, Listing(snapshot.name, tuple(files.values()))

    def forget(self, snapshot: Path) -> int:
        """Remove a snapshot, its record, and the blobs that no other snapshot links to; bytes freed."""
        folder = snapshot.parent.parent
        for record in (self._records / folder.name).glob(f"{snapshot.name}-*.json"):
            record.unlink(missing_ok=True)
        (self._records / folder.name / "repository" / f"{snapshot.name}.json").unlink(missing_ok=True)
        shutil.rmtree(snapshot, ignore_errors=True)
        linked = {path.resolve() for path in (folder / "snapshots").rglob("*") if path.is_symlink()}
        freed = 0
        for blob in (folder / "blobs").glob("*"):
            if blob.resolve() not in linked:
                freed += blob.stat().st_size
                blob.unlink(missing_ok=True)
        return freed

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

    def _full_record(self, ref: HuggingFaceRef, commit: str) -> Path:
        return self._records / self._folder(ref).name / "repository" / f"{commit}.json"

    def _record(self, ref: HuggingFaceRef, commit: str, selection: SelectionPolicy) -> Path:
        chosen = hashlib.sha256(msgspec.json.encode(selection)).hexdigest()[:16]
        return self._records / self._folder(ref).name / f"{commit}-{chosen}.json"


def selection_policy(settings: ModelSettings, want: ModelWant) -> SelectionPolicy:
    """What may be taken from a repository. The author's dtypes decide if there are any; otherwise COZY_HF_WEIGHT_PRECISIONS."""
    spec = want.spec
    listed = split_list(settings.cozy_hf_weight_precisions)
    precisions = listed if listed and tuple(spec.dtypes) == DEFAULT_DTYPES else tuple(spec.dtypes)
    if "fp8" in precisions:  # a repository without eight-bit weights is narrowed on the device
        precisions += tuple(name for name in ("bf16", "fp16") if name not in precisions)
    return SelectionPolicy(
        precisions=precisions,
        components=split_list(settings.cozy_hf_components),
        optional_components=is_true(settings.cozy_hf_include_optional_components),
        root_json=is_true(settings.cozy_hf_allow_root_json),
        full_repo=is_true(settings.cozy_hf_full_repo_download),
        max_bytes=round(settings.cozy_hf_max_gb * 1e9),
        takers=want.takers,
    )


def local_plan(snapshot: Path, policy: SelectionPolicy) -> FilePlan | None:
    """The plan of a snapshot fetched by another tool, if it has everything that a plan needs."""
    if not snapshot.is_dir():
        return None
    files = {str(path.relative_to(snapshot)): path for path in snapshot.rglob("*") if path.is_file()}
    sizes = {name: path.stat().st_size for name, path in files.items()}
    try:
        return plan_folder(files, sizes, policy, "")
    except (FatalError, OSError):
        return None


def _local(model_id: str, snapshot: Path, listing: Listing, fetched: int) -> LocalModel:
    return LocalModel(model_id, snapshot, listing.digest, {file.path: file.digest for file in listing.files if file.digest}, fetched)


def _hf_ref(text: str) -> HuggingFaceRef:
    ref = parse_model_ref(text)
    if not isinstance(ref, HuggingFaceRef):
        raise FatalError(f"model ref {text!r} is not a Hugging Face ref")
    return ref


def _wanted(address: Callable[[str], Link], folder: Path, file: RemoteFile, name: str) -> Wanted:
    if not file.digest:
        raise FatalError(f"{name}: the listing names no digest for {file.path!r}")
    return Wanted(_blob_path(folder, file), file.size_bytes, file.digest, lambda expired: address(file.path), file.path)


def _blob_path(folder: Path, file: RemoteFile) -> Path:
    return folder / "blobs" / file.digest.partition(":")[2]


def _link(blob: Path, target: Path) -> None:
    """A relative link, put in place atomically."""
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
