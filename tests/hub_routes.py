"""The Hub's routes: each answers one request of the client, from what `hub_store` keeps."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from hub_store import Commit, HubError, Repo, card_errors, card_metadata, changed, file_entry, folder_entry, is_large

if TYPE_CHECKING:
    from hub_server import HubServer

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

    def delete_repo(self) -> Any:
        wish = json.loads(self.body)
        repo = self._repo(wish.get("type", "model") + "s", f"{wish['organization']}/{wish['name']}", write=True)
        del self.hub.repos[repo.kind, repo.id]
        return {}

    def change_settings(self, kind: str, repo_id: str) -> Any:
        repo, wish = self._repo(kind, repo_id, write=True), json.loads(self.body)
        repo.private = wish.get("private", wish.get("visibility", "") == "private")
        repo.gated = bool(wish.get("gated", repo.gated))
        return {}

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
            **{"createdAt": DATE, "private": repo.private, "gated": "auto" if repo.gated else False},
            **{"disabled": False, "downloads": 0, "likes": 0, "tags": card.get("tags") or [], "cardData": card},
            "siblings": [{"rfilename": path} for path in sorted(commit.tree)],
        }

    def auth_check(self, kind: str, repo_id: str, write: str) -> Any:
        self._repo(kind, repo_id, write=bool(write))
        return {}

    def refs(self, kind: str, repo_id: str) -> Any:
        def listed(refs: dict[str, str], place: str) -> list[dict[str, str]]:
            return [{"name": name, "ref": f"refs/{place}/{name}", "targetCommit": oid} for name, oid in refs.items()]

        repo = self._repo(kind, repo_id)
        return {"branches": listed(repo.branches, "heads"), "converts": [], "tags": listed(repo.tags, "tags")}

    def set_ref(self, kind: str, repo_id: str, place: str, name: str) -> Any:
        repo, wish = self._repo(kind, repo_id, write=True), json.loads(self.body or b"{}")
        refs, name, start = (repo.tags, wish["tag"], name) if place == "tag" else (repo.branches, name, "")
        if name in refs:
            raise HubError(409, f"Reference already exists: {name}")
        refs[name] = self._commit(repo, start or wish.get("startingPoint", "main")).oid
        return {}

    def delete_ref(self, kind: str, repo_id: str, place: str, name: str) -> Any:
        repo = self._repo(kind, repo_id, write=True)
        self._commit(repo, name)
        del (repo.tags if place == "tag" else repo.branches)[name]
        return {}

    def list_commits(self, kind: str, repo_id: str, revision: str) -> Any:
        repo = self._repo(kind, repo_id)
        upto = repo.commits.index(self._commit(repo, revision))
        entry = {"authors": [{"user": self.hub.user}], "date": DATE, "message": ""}
        return [{"id": commit.oid, "title": commit.title, **entry} for commit in reversed(repo.commits[: upto + 1])]

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
            place = f"{self.hub.storage_url}/lfs/{wish['oid']}"
            upload: dict[str, Any] = {"href": place}
            if wish["size"] > self.hub.part_bytes:
                count = -(-wish["size"] // self.hub.part_bytes)
                parts = {str(number): f"{place}/part/{number}" for number in range(1, count + 1)}
                upload = {"href": f"{self.hub.url}/lfs/{wish['oid']}/complete"}
                upload["header"] = {"chunk_size": str(self.hub.part_bytes), **parts}
            verify = {"href": f"{self.hub.url}/lfs/{wish['oid']}/verify"}
            known = wish["oid"] in self.hub.large_files
            objects.append({**wish, **({} if known else {"actions": {"upload": upload, "verify": verify}})})
        return {"transfer": "basic", "objects": objects}

    def store(self, oid: str) -> Any:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise HubError(400, f"what was uploaded is not {oid}")
        self.hub.large_files[oid] = self.body
        return {}

    def store_part(self, oid: str, number: str) -> Any:
        self.hub.parts.setdefault(oid, {})[int(number)] = self.body
        self.reply(200, b"", {"ETag": f'"{oid[:8]}-{number}"'})

    def complete_parts(self, oid: str) -> Any:
        parts = self.hub.parts[oid]
        self.body = b"".join(parts[number] for number in sorted(parts))
        return self.store(oid)

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
        if repo.gated:
            raise HubError(403 if self.token else 401, f"Access to model {repo_id} is restricted.", "GatedRepo")
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
    (r"DELETE /api/repos/delete", HubRoutes.delete_repo),
    (r"POST /api/validate-yaml", HubRoutes.validate_card),
    (rf"GET {_API}", HubRoutes.repo_info),
    (rf"GET {_API}/revision/([^/]+)", HubRoutes.repo_info),
    (rf"GET {_API}/auth-check(/write)?", HubRoutes.auth_check),
    (rf"PUT {_API}/settings", HubRoutes.change_settings),
    (rf"POST {_API}/hardware", HubRoutes.request_hardware),
    (rf"GET {_API}/refs", HubRoutes.refs),
    (rf"GET {_API}/commits/([^/]+)", HubRoutes.list_commits),
    (rf"GET {_API}/tree/([^/]+)(?:/(.+))?", HubRoutes.tree),
    (rf"POST {_API}/paths-info/([^/]+)", HubRoutes.paths_info),
    (rf"POST {_API}/preupload/([^/]+)", HubRoutes.preupload),
    (rf"POST {_API}/commit/([^/]+)", HubRoutes.commit),
    (rf"POST {_API}/(branch|tag)/([^/]+)", HubRoutes.set_ref),
    (rf"DELETE {_API}/(branch|tag)/([^/]+)", HubRoutes.delete_ref),
    (r"POST /(datasets/|spaces/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", HubRoutes.lfs_batch),
    (r"PUT /lfs/(\w+)", HubRoutes.store),
    (r"PUT /lfs/(\w+)/part/(\d+)", HubRoutes.store_part),
    (r"POST /lfs/(\w+)/complete", HubRoutes.complete_parts),
    (r"POST /lfs/(\w+)/verify", HubRoutes.verify),
    (r"(?:GET|HEAD) /(datasets/|spaces/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", HubRoutes.resolve),
    (r"(?:GET|HEAD) /storage/(\w+)", HubRoutes.stored),
    (r"(?:GET|HEAD) /api/(?:agent-harnesses|telemetry/.*)", HubRoutes.nothing),
]
