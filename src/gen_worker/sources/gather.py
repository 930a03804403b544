"""Makes a plan and reads what it needs to know from a repository or a folder. Anything found there may be wrong: the
error names file and cause.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gen_worker.errors import FatalError
from gen_worker.net.retry import HttpError
from gen_worker.sources.file_plan import FilePlan, Knowledge, PlanError, SelectionPolicy, plan_files
from gen_worker.sources.weight_files import HeaderError, header_size, precision_of, read_header

MAX_DOCUMENT_BYTES = 32 << 20
MAX_ROUNDS = 64  # a plan asks for more in each round; real plans need four


class DocumentError(ValueError):
    """A JSON file that cannot be read."""


def parse_document(data: bytes) -> Any:
    """JSON as Python's own parser reads it, because the libraries use it: NaN and numbers of any size are accepted. `DocumentError`."""
    try:
        return json.loads(data)
    except UnicodeDecodeError as exc:
        raise DocumentError(f"it is not UTF-8: {exc.reason} at byte {exc.start}") from None
    except (ValueError, RecursionError) as exc:
        raise DocumentError(f"it is not JSON: {exc}") from None


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object on this disk; `FatalError` names the file and what is wrong with it."""
    name = f"{path.parent.name}/{path.name}"
    try:
        found = parse_document(path.read_bytes())
    except (DocumentError, OSError) as exc:
        raise FatalError(f"{name}: {exc}") from None
    if not isinstance(found, dict):
        raise FatalError(f"{name} is not a JSON object")
    return found


def gather(
    sizes: Mapping[str, int], policy: SelectionPolicy, read_document: Callable[[str], bytes], read_head: Callable[[str], bytes], name: str
) -> FilePlan:
    """Plan, and read what the plan asks for until it is complete. `FatalError` names the repository and what is wrong;
    `RetryableError` is raised by the reader.
    """
    documents: dict[str, Any] = {}
    precisions: dict[str, str | None] = {}
    path = ""
    try:
        for _ in range(MAX_ROUNDS):
            plan = plan_files(Knowledge(sizes, documents, precisions), policy)
            if isinstance(plan, FilePlan):
                return plan
            for path in plan.documents:
                documents[path] = _document(path, sizes, read_document)
            for path in plan.headers:
                precisions[path] = precision_of(read_header(read_head(path), sizes[path]))
    except PlanError as exc:
        raise FatalError(f"{name}: {exc}") from None
    except (DocumentError, HeaderError) as exc:
        raise FatalError(f"{name}: {path}: {exc}") from None
    except HttpError as exc:
        if exc.status == 404:
            raise FatalError(f"{name}: {path} is in the listing, but the server has no such file ({exc})") from exc
        raise
    raise FatalError(f"{name}: its files refer to each other endlessly")


def _document(path: str, sizes: Mapping[str, int], read: Callable[[str], bytes]) -> Any:
    if sizes[path] > MAX_DOCUMENT_BYTES:
        raise DocumentError(f"it has {sizes[path]} bytes; at most {MAX_DOCUMENT_BYTES} are read")
    return parse_document(read(path))


def plan_folder(files: Mapping[str, Path], sizes: Mapping[str, int], policy: SelectionPolicy, name: str) -> FilePlan:
    """The plan of a repository of which some or all files are on this disk. `FatalError` also when the plan needs to
    read a missing file.
    """

    def read(path: str) -> bytes:
        return files[path].read_bytes()

    def head(path: str) -> bytes:
        with files[path].open("rb") as file:
            data = file.read(8)
            return data + file.read(header_size(data, sizes[path]))

    try:
        return gather(sizes, policy, read, head, name)
    except (OSError, KeyError) as exc:
        raise FatalError(f"{name}: {exc} is not here") from exc
