"""The test Hub in memory: repositories of commits of files, and its routes, each of which answers one request."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs

import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK

if TYPE_CHECKING:
    from hub_server import HubServer

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
    settings: dict[str, Any] = field(default_factory=dict)
    commits: list[Commit] = field(default_factory=list)
    """All commits on all branches, oldest first; the first is the Hub's own, with `.gitattributes`."""
    branches: dict[str, str] = field(default_factory=dict)

    def find(self, revision: str) -> Commit | None:
        oid = self.branches.get(revision, revision)
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


DATE = "2024-05-17T10:00:00.000Z"


class HubRoutes:
    """What the request handler mixes in: methods take what the route's groups matched, and return the JSON to send,
    or None where they have replied themselves."""

    hub: HubServer
    body: bytes
    query: dict[str, list[str]]
    token: str | None
    reply: Callable[..., None]

    # ---------------------------------------------------------------------------------------------------- who may

    def _repo(self, kind: str, repo_id: str, *, write: bool = False) -> Repo:
        repo = self.hub.repos.get((kind, repo_id))
        if repo is None or (repo.private and self.token is None):
            if self.token is None:
                raise HubError(401, "Invalid username or password.", "RepoNotFound")
            raise HubError(404, "Repository not found", "RepoNotFound")
        if write:
            self._check_write(repo_id)
        return repo

    def _check_write(self, repo_id: str) -> None:
        if self.token is None:
            raise HubError(401, "Invalid username or password.")
        if self.hub.roles[self.token]["role"] == "read" or repo_id.split("/")[0] != self.hub.user:
            raise HubError(403, f"You don't have the rights to write to {repo_id} as {self.hub.user}")

    def _commit(self, repo: Repo, revision: str) -> Commit:
        commit = repo.find(revision or "main")
        if commit is None:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    # ------------------------------------------------------------------------------------------------------ routes

    def whoami(self) -> Any:
        if self.token is None:
            raise HubError(401, "Invalid username or password.")
        auth = {"type": "access_token", "accessToken": {"displayName": "test", **self.hub.roles[self.token]}}
        return {"type": "user", "id": "1", "name": self.hub.user, "fullname": "Test", "orgs": [], "auth": auth}

    def create_repo(self) -> Any:
        wish = json.loads(self.body)
        repo_id = f"{wish.get('organization') or self.hub.user}/{wish['name']}"
        kind = wish.get("type", "model") + "s"
        self._check_write(repo_id)
        url = f"{self.hub.url}/{'' if kind == 'models' else kind + '/'}{repo_id}"
        if (kind, repo_id) in self.hub.repos:
            return self.reply(409, {"error": "You already created this repo", "url": url})
        private = wish.get("private", False) or wish.get("visibility") == "private"
        self.hub.create(repo_id, kind=kind, private=private, settings=wish)
        return {"url": url, "name": repo_id, "id": "1"}

    def request_hardware(self, kind: str, repo_id: str) -> Any:
        repo, wish = self._repo(kind, repo_id, write=True), json.loads(self.body)
        repo.settings["hardware"] = wish["flavor"]
        return {"stage": "BUILDING", "hardware": {"current": None, "requested": wish["flavor"]}}

    def repo_info(self, kind: str, repo_id: str, revision: str = "") -> Any:
        repo = self._repo(kind, repo_id)
        commit = self._commit(repo, revision)
        readme = commit.tree.get("README.md")
        card = card_metadata(readme.content.decode()) if readme else {}
        return {
            **{"_id": "1", "id": repo_id, "author": repo_id.split("/")[0], "sha": commit.oid, "lastModified": DATE},
            **{"createdAt": DATE, "private": repo.private, "gated": False},
            **{"disabled": False, "downloads": 0, "likes": 0, "tags": card.get("tags") or [], "cardData": card},
            "siblings": [{"rfilename": path} for path in sorted(commit.tree)],
        }

    def create_branch(self, kind: str, repo_id: str, name: str) -> Any:
        repo, wish = self._repo(kind, repo_id, write=True), json.loads(self.body or b"{}")
        if name in repo.branches:
            raise HubError(409, f"Reference already exists: {name}")
        repo.branches[name] = self._commit(repo, wish.get("startingPoint", "main")).oid
        return {}

    def tree(self, kind: str, repo_id: str, revision: str, folder: str) -> Any:
        commit = self._commit(self._repo(kind, repo_id), revision)
        prefix = f"{folder}/" if folder else ""
        inside = {path: file for path, file in commit.tree.items() if path.startswith(prefix)}
        if not inside:
            raise HubError(404, f"{folder} does not exist on {revision}", "EntryNotFound")
        folders = {str(p) for path in inside for p in PurePosixPath(path).parents if len(str(p)) > len(prefix)}
        entries = [folder_entry(path) for path in folders - {"."}]
        entries += [file_entry(path, file) for path, file in inside.items()]
        everything = self.query.get("recursive", ["false"])[0].lower() == "true"
        shown = [entry for entry in entries if everything or "/" not in entry["path"][len(prefix) :]]
        return sorted(shown, key=lambda entry: entry["path"])

    def paths_info(self, kind: str, repo_id: str, revision: str) -> Any:
        commit = self._commit(self._repo(kind, repo_id), revision)
        folders = {str(parent) for path in commit.tree for parent in PurePosixPath(path).parents}
        asked = parse_qs(self.body.decode()).get("paths", [])
        found = [file_entry(path, commit.tree[path]) for path in asked if path in commit.tree]
        return found + [folder_entry(path) for path in asked if path in folders]

    def validate_card(self) -> Any:
        wish = json.loads(self.body)
        errors = [{"message": text} for text in card_errors(wish["content"])]
        self.reply(400 if errors else 200, {"errors": errors, "warnings": []})

    def preupload(self, kind: str, repo_id: str, revision: str) -> Any:
        present = self._commit(self._repo(kind, repo_id, write=True), revision).tree
        answers = []
        for file in json.loads(self.body)["files"]:
            path = file["path"]
            mode = "lfs" if is_large(path, file["size"], base64.b64decode(file["sample"])) else "regular"
            oid = present[path].etag if path in present else None
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return {"files": answers}

    def lfs_batch(self, kind: str, repo_id: str) -> Any:
        self._repo((kind or "models/").rstrip("/"), repo_id, write=True)
        objects = []
        for wish in json.loads(self.body)["objects"]:
            upload = {"href": f"{self.hub.storage_url}/lfs/{wish['oid']}"}
            verify = {"href": f"{self.hub.url}/lfs/{wish['oid']}/verify"}
            known = wish["oid"] in self.hub.large_files
            objects.append({**wish, **({} if known else {"actions": {"upload": upload, "verify": verify}})})
        return {"transfer": "basic", "objects": objects}

    def store(self, oid: str) -> Any:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise HubError(400, f"what was uploaded is not {oid}")
        self.hub.large_files[oid] = self.body
        return {}

    def verify(self, oid: str) -> Any:
        if len(self.hub.large_files.get(oid, b"")) != json.loads(self.body)["size"]:
            raise HubError(404, f"{oid} was not uploaded whole")
        return {}

    def commit(self, kind: str, repo_id: str, revision: str) -> Any:
        repo = self._repo(kind, repo_id, write=True)
        parent, lines = self._commit(repo, revision), [json.loads(line) for line in self.body.splitlines()]
        if lines[0]["value"].get("parentCommit") not in (None, parent.oid):
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        tree, operations = changed(parent.tree, lines[1:], self.hub.large_files)
        readme = tree.get("README.md")
        if readme is not None and (errors := card_errors(readme.content.decode())):
            raise HubError(400, f"Invalid metadata in README.md: {'; '.join(errors)}")
        commit = repo.commit(lines[0]["value"]["summary"], tree, operations, revision)
        url = f"{self.hub.url}/{'' if kind == 'models' else kind + '/'}{repo_id}/commit/{commit.oid}"
        return {"success": True, "commitOid": commit.oid, "commitUrl": url, "hookOutput": ""}

    def resolve(self, kind: str, repo_id: str, revision: str, path: str) -> Any:
        repo = self._repo((kind or "models/").rstrip("/"), repo_id)
        commit = self._commit(repo, revision)
        if path not in commit.tree:
            raise HubError(404, "Entry not found", "EntryNotFound")
        file = commit.tree[path]
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
        if not file.lfs:
            return self.reply(200, file.content, headers)
        place = {"Location": f"{self.hub.storage_url}/storage/{file.sha256}"}
        linked = {"X-Linked-Size": str(len(file.content)), "X-Linked-ETag": f'"{file.sha256}"'}
        return self.reply(302, b"", {**headers, **linked, **place})

    def stored(self, oid: str) -> Any:
        if self.token is not None:
            raise HubError(400, "Only one auth mechanism allowed: the token must not be sent to the storage host")
        self.reply(200, self.hub.large_files[oid], {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})

    def nothing(self) -> Any:
        return {}


_API = r"/api/(models|datasets|spaces)/([^/]+/[^/]+)"
ROUTES: list[tuple[str, Callable[..., Any]]] = [
    (r"GET /api/whoami-v2", HubRoutes.whoami),
    (r"POST /api/repos/create", HubRoutes.create_repo),
    (r"POST /api/validate-yaml", HubRoutes.validate_card),
    (rf"GET {_API}", HubRoutes.repo_info),
    (rf"GET {_API}/revision/([^/]+)", HubRoutes.repo_info),
    (rf"POST {_API}/hardware", HubRoutes.request_hardware),
    (rf"GET {_API}/tree/([^/]+)(?:/(.+))?", HubRoutes.tree),
    (rf"POST {_API}/paths-info/([^/]+)", HubRoutes.paths_info),
    (rf"POST {_API}/preupload/([^/]+)", HubRoutes.preupload),
    (rf"POST {_API}/commit/([^/]+)", HubRoutes.commit),
    (rf"POST {_API}/branch/([^/]+)", HubRoutes.create_branch),
    (r"POST /(datasets/|spaces/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", HubRoutes.lfs_batch),
    (r"PUT /lfs/(\w+)", HubRoutes.store),
    (r"POST /lfs/(\w+)/verify", HubRoutes.verify),
    (r"(?:GET|HEAD) /(datasets/|spaces/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", HubRoutes.resolve),
    (r"(?:GET|HEAD) /storage/(\w+)", HubRoutes.stored),
    (r"(?:GET|HEAD) /api/(?:agent-harnesses|telemetry/.*)", HubRoutes.nothing),
]
