"""Fetching a model's files: what the Hub client does against a server that answers as the Hub does, well or badly."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from pix2pix_hub.errors import UserError
from pix2pix_hub.models import UNetGenerator
from pix2pix_hub.models.fetch import fetch_files

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {"config.json": b"{}", "model.safetensors": b"weights", "pytorch_model.bin": b"pickle", "a/config.json": b"[]"}


class FakeHub(BaseHTTPRequestHandler):
    """`user/model` holds FILES; other names stand for what can go wrong."""

    requests: list[str]
    hang_up: bool

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.requests.append(path)
        refusals = {
            "user/absent": (401, {"X_Error_Code": "RepoNotFound"}),
            "user/gated": (403, {"X_Error_Code": "GatedRepo"}),
            "user/disabled": (403, {"X_Error_Message": "Access to this resource is disabled."}),
            "user/forbidden": (403, {}),
            "user/broken": (503, {}),
            "user/busy": (429, {}),
        }
        for name, (status, headers) in refusals.items():
            if f"/{name}" in path:
                return self.answer(status, **headers)
        if "revision/" in path and not path.endswith(("/main", COMMIT)):
            return self.answer(404, X_Error_Code="RevisionNotFound")
        if path.startswith("/api/models/user/model/tree"):
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": f"{len(content):040}"}
                for name, content in FILES.items()
            ]
            return self.answer(200, json.dumps(tree).encode())
        if path.startswith("/api/models/user/model"):
            return self.answer(200, json.dumps({"id": "user/model", "sha": COMMIT, "siblings": []}).encode())
        name = path.removeprefix(f"/user/model/resolve/{COMMIT}/")
        if self.command == "GET" and self.hang_up:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"only the beginning")
            return self.connection.close()
        self.answer(200, FILES[name], ETag=f'"{name}"'.replace("/", ""), X_Repo_Commit=COMMIT)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeHub]]:
    """The client talks to a `FakeHub`, with an empty cache and no token."""
    handler = type("Handler", (FakeHub,), {"requests": [], "hang_up": False})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    point_client_at(f"http://127.0.0.1:{server.server_port}", tmp_path, monkeypatch)
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


def point_client_at(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no_token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client's pauses between attempts


def test_only_the_named_files_are_fetched(hub: type[FakeHub]) -> None:
    folder = fetch_files("user/model", ["config.json", "a/config.json", "absent.json"])
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")) == ["a/config.json", "config.json"]
    assert (folder / "config.json").read_bytes() == FILES["config.json"]
    assert not [path for path in hub.requests if "pytorch_model" in path or "safetensors" in path]


def test_without_network_the_cache_is_used(hub: type[FakeHub], monkeypatch: pytest.MonkeyPatch) -> None:
    online = fetch_files("user/model", ["config.json"])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert fetch_files("user/model", ["config.json"]) == online
    assert fetch_files("user/model", ["config.json"], revision=COMMIT) == online
    assert not hub.requests
    with pytest.raises(UserError, match=r"other/model.*HF_HUB_OFFLINE forbids.*hf download other/model"):
        fetch_files("other/model", ["config.json"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("user/absent", r"no local folder, and no repository that you may read.*No token was sent.*hf auth login"),
        ("user/gated", r"user/gated is gated: ask for access at http.*/user/gated"),
        ("user/disabled", r"user/disabled has been disabled on http.*: use another model"),
        ("user/forbidden", r"answered 403 Forbidden: you may not read it"),
        ("user/broken", r"answered 503 Service Unavailable: the Hub is in trouble.*again later"),
        ("user/busy", r"answered 429 Too Many Requests.*Wait"),
        ("a/b/c/d", r"no local folder, nor can it be a repository"),
        ("user/--", r"no local folder, nor can it be a repository"),
    ],
)
def test_what_the_hub_refuses_is_explained(name: str, words: str, hub: type[FakeHub]) -> None:
    with pytest.raises(UserError, match=words):
        fetch_files(name, ["config.json"])


def test_a_token_that_does_not_help_is_mentioned(hub: type[FakeHub]) -> None:
    with pytest.raises(UserError, match="A token was sent: if it is private, see that the token may read it"):
        fetch_files("user/absent", ["config.json"], token="hf_secret")
    with pytest.raises(UserError, match="needs one on this machine: type `hf auth login`"):
        fetch_files("user/model", ["config.json"], token=True)


def test_a_missing_revision_is_named(hub: type[FakeHub]) -> None:
    with pytest.raises(UserError, match=r"user/model has no revision 'v9': name a branch, tag or commit"):
        fetch_files("user/model", ["config.json"], revision="v9")


def test_a_download_that_breaks_off_leaves_nothing_to_load(hub: type[FakeHub], tmp_path: Path) -> None:
    hub.hang_up = True
    with pytest.raises(UserError, match=r"download of user/model from http.* broke off .*type the same again"):
        fetch_files("user/model", ["model.safetensors"])
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    hub.hang_up = False
    assert (fetch_files("user/model", ["model.safetensors"]) / "model.safetensors").read_bytes() == b"weights"


def test_a_hub_out_of_reach_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_client_at("http://127.0.0.1:9", tmp_path, monkeypatch)  # the discard port: nobody listens
    with pytest.raises(UserError, match=r"not whole in the cache, and http://127.0.0.1:9 could not be reached"):
        fetch_files("user/model", ["config.json"])


def test_a_folder_that_is_not_there_names_the_closest(hub: type[FakeHub], tmp_path: Path) -> None:
    (tmp_path / "runs" / "demo" / "model").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no local folder.* Did you mean .*runs/demo/model\?"):
        fetch_files(tmp_path / "runs" / "demo" / "modle", ["config.json"])
    with pytest.raises(UserError, match=r"The folder .*/runs exists, but holds no other\."):
        fetch_files(f"{tmp_path}/runs/other", ["config.json"])
    (tmp_path / "weights.pth").touch()
    with pytest.raises(UserError, match=r"weights.pth is a file: name the folder"):
        fetch_files(tmp_path / "weights.pth", ["config.json"])


@pytest.mark.parametrize(
    "name", ["../config.json", "/etc/passwd", "a/../../b", "*.json", "config[0].json", "a\\b", "a//b"]
)
def test_names_that_lead_elsewhere_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no file of a model"):
        fetch_files(tmp_path, [name])


def test_a_config_is_looked_at_before_weights_are_fetched(hub: type[FakeHub]) -> None:
    with pytest.raises(UserError, match="describes an unnamed network, expected UNetGenerator"):
        UNetGenerator.from_pretrained("user/model")
    assert not [path for path in hub.requests if "safetensors" in path]
