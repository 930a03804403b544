"""Listings of published repositories, and which classes read which files. The head of pipelines.txt describes the format."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gen_worker.sources.file_plan import FilePlan, Knowledge, Needs, SelectionPolicy, plan_files

HERE = Path(__file__).parent


@dataclass
class Repository:
    name: str
    takers: dict[str, str] = field(default_factory=dict)  # by letter
    dtypes: tuple[str, ...] = ("fp16", "bf16")
    max_gb: int = 100
    refused: dict[str, str] = field(default_factory=dict)  # by letter: a pattern of the message
    documents: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    precisions: dict[str, str] = field(default_factory=dict)
    readers: dict[str, str] = field(default_factory=dict)  # by path

    def expected(self, reader: str) -> set[str]:
        return {path for path, readers in self.readers.items() if reader in readers}

    def plan(self, takers: tuple[str, ...], **how: Any) -> FilePlan:
        """As the downloader plans: give what is asked for until nothing is."""
        policy = SelectionPolicy(precisions=self.dtypes, takers=takers, max_bytes=self.max_gb * 10**9, **how)
        documents: dict[str, Any] = {}
        headers: dict[str, str | None] = {}
        while isinstance(found := plan_files(Knowledge(self.sizes, documents, headers), policy), Needs):
            assert set(found.documents + found.headers).isdisjoint(documents.keys() | headers.keys()), "asked for twice"
            documents |= {path: self._document(path) for path in found.documents}
            headers |= {path: self.precisions.get(path) for path in found.headers}
        return found

    def _document(self, path: str) -> Any:
        assert path in self.sizes, f"{path} is not in the repository"
        if path in self.documents:
            return self.documents[path]
        stem, is_index, _ = path.partition(".safetensors.index")
        if is_index:
            marked = ".fp16" if path.endswith(".fp16.json") else ""
            shard = re.compile(re.escape(f"{stem}{marked}") + r"-\d{5}-of-\d{5}\.safetensors")
            shards = [name for name in self.sizes if shard.fullmatch(name)]
            return {"weight_map": {str(number): name.rpartition("/")[2] for number, name in enumerate(shards)}}
        return {}


def repositories() -> list[Repository]:
    return [found for file in sorted(HERE.glob("*.txt")) for found in _read(file.read_text())]


def _read(text: str) -> Iterator[Repository]:
    found: Repository | None = None
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        if line.startswith("== "):
            if found is not None:
                yield found
            found = Repository(line[3:])
            continue
        assert found is not None
        word, _, rest = line.partition(" ")
        key, _, value = rest.partition(": ")
        match word:
            case "as":
                found.takers[key] = value
            case "dtypes":
                found.dtypes = tuple(rest.split())
            case "max_gb":
                found.max_gb = int(rest)
            case "refused":
                found.refused[key] = value
            case "json":
                found.documents[key] = json.loads(value)
            case _:
                name, size, *precision = rest.split(" ")
                for path in _expanded(name):
                    found.sizes[path] = int(size)
                    found.readers[path] = word
                    if precision:
                        found.precisions[path] = precision[0]
    assert found is not None
    yield found


def _expanded(name: str) -> list[str]:
    several = re.search(r"\{(\d+)\.\.(\d+)\}", name)
    if several is None:
        return [name]
    return [name.replace(several[0], str(number)) for number in range(int(several[1]), int(several[2]) + 1)]
