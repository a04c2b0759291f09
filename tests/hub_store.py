"""What the test Hub keeps, in memory: repositories of commits of files; and what it lets a model card say."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK

LFS_SUFFIXES = {".safetensors", ".bin", ".pth", ".pt", ".pkl", ".parquet", ".arrow", ".onnx", ".zip", ".tar", ".npy"}


@dataclass(frozen=True)
class HubFile:
    content: bytes
    lfs: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def blob_id(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.blob_id


class Operation(NamedTuple):
    kind: str  # "add" or "delete"
    path: str


@dataclass(frozen=True)
class Commit:
    oid: str
    title: str
    operations: tuple[Operation, ...]
    tree: Mapping[str, HubFile]


@dataclass
class Repo:
    kind: str  # "models", "datasets" or "spaces"
    id: str
    private: bool = False
    gated: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    commits: list[Commit] = field(default_factory=list)
    """All commits on all branches, oldest first; the first is the Hub's own, with `.gitattributes`."""
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def find(self, revision: str) -> Commit | None:
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        return next((commit for commit in self.commits if commit.oid == oid), None)

    def head(self, revision: str = "main") -> Commit:
        commit = self.find(revision)
        assert commit is not None, f"{self.id} has no revision {revision}"
        return commit

    def files(self, revision: str = "main") -> set[str]:
        return set(self.head(revision).tree)

    def read(self, path: str, revision: str = "main") -> bytes:
        return self.head(revision).tree[path].content

    def commit(self, title: str, tree: Mapping[str, HubFile], operations: list[Operation], branch: str) -> Commit:
        seed = f"{self.id} {len(self.commits)} {title} {sorted((path, file.etag) for path, file in tree.items())}"
        commit = Commit(hashlib.sha1(seed.encode()).hexdigest(), title, tuple(operations), dict(tree))
        self.commits.append(commit)
        self.branches[branch] = commit.oid
        return commit


class HubError(Exception):
    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


def is_large(path: str, size: int, sample: bytes) -> bool:
    return size > 0 and (PurePosixPath(path).suffix in LFS_SUFFIXES or size > 10 * 2**20 or b"\0" in sample[:512])


def changed(
    tree: Mapping[str, HubFile], lines: list[dict[str, Any]], large_files: Mapping[str, bytes]
) -> tuple[dict[str, HubFile], list[Operation]]:
    """The tree after a commit's operations, as the Hub's NDJSON gives them."""
    result, operations = dict(tree), []
    for line in lines:
        key, value = line["key"], line["value"]
        path = value["path"]
        if key == "file":
            result[path] = HubFile(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            if value["oid"] not in large_files:
                raise HubError(400, f"LFS pointer of {path} points to a file that was not uploaded")
            result[path] = HubFile(large_files[value["oid"]], lfs=True)
        else:
            gone = [name for name in tree if name == path or (key == "deletedFolder" and name.startswith(path))]
            if not gone:
                raise HubError(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
            for name in gone:
                del result[name]
            operations += [Operation("delete", name) for name in gone]
            continue
        operations.append(Operation("add", path))
    return result, operations


def file_entry(path: str, file: HubFile) -> dict[str, Any]:
    lfs = {"lfs": {"oid": file.sha256, "size": len(file.content), "pointerSize": 134}} if file.lfs else {}
    return {"type": "file", "path": path, "oid": file.blob_id, "size": len(file.content), **lfs}


def folder_entry(path: str) -> dict[str, Any]:
    return {"type": "directory", "path": path, "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0}


LICENSES = {"apache-2.0", "mit", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc0-1.0", "openrail", "other", "unknown"}


def card_metadata(text: str) -> dict[str, Any]:
    """The YAML block of a README, {} where there is none."""
    block = REGEX_YAML_BLOCK.search(text)
    return (yaml.safe_load(block.group(2)) or {}) if block else {}


def card_errors(text: str) -> list[str]:
    """What the Hub objects to in a README's metadata."""
    try:
        data = card_metadata(text)
    except yaml.YAMLError as error:
        return [f"YAML: {error}"]
    if not isinstance(data, dict):
        return ["metadata must be an object"]
    errors = []
    if data.get("license", "mit") not in LICENSES:
        errors.append(f'"license" must be one of {sorted(LICENSES)}')
    for key in ("tags", "datasets", "metrics"):
        if not all(isinstance(entry, str) and entry for entry in data.get(key) or []):
            errors.append(f'"{key}" must be a list of strings')
    for key in ("library_name", "pipeline_tag"):
        if not isinstance(data.get(key, ""), str):
            errors.append(f'"{key}" must be a string')
    for index, model in enumerate(data.get("model-index") or []):
        errors += [f'"model-index[{index}].{problem}' for problem in _result_errors(model)]
    return errors


def _result_errors(model: dict[str, Any]) -> list[str]:
    errors = [] if isinstance(model.get("name"), str) and model["name"] else ['name" must be a string']
    for number, result in enumerate(model.get("results") or []):
        place = f"results[{number}]"
        if not result.get("task", {}).get("type"):
            errors.append(f'{place}.task.type" is required')
        if not (result.get("dataset", {}).get("type") and result.get("dataset", {}).get("name")):
            errors.append(f'{place}.dataset" needs a name and a type')
        metrics = result.get("metrics")
        if not metrics or not all(metric.get("type") and "value" in metric for metric in metrics):
            errors.append(f'{place}.metrics" need a type and a value')
    return errors
