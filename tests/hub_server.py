"""A Hugging Face Hub on this machine, in memory, for tests: the unmodified `huggingface_hub` client talks to it.

    def test_push(hub):                                     # fixture of conftest.py: this process uses the server
        hub.fail("POST .*/commit/", status=503, times=1)
        ...
        assert hub.repo("tester/maps").files() == {".gitattributes", "README.md", ...}

    subprocess.run(command, env=hub.environment())          # and so does another process (token=None: without a token)

It knows the routes (`hub_routes.py`) of what the package asks for: `create_repo`, `create_commit`, `upload_folder`,
`snapshot_download`, `hf_hub_download`, repo and tree queries, branches, cards, and the `datasets` library. As on the
Hub, large and binary files are uploaded through LFS and downloaded through a redirect to another host, without the
token. What it was asked and does not know is in `unknown`, which the fixture asserts to be empty.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from hub_routes import ROUTES, Commit, HubError, HubFile, HubRoutes, Operation, Repo, is_large


@dataclass
class Fault:
    """What happens to the next `times` requests whose "METHOD /path" matches `pattern`."""

    pattern: str
    times: int = 1
    status: int = 0  # of an error that answers, without obeying
    error_code: str = ""
    message: str = "injected"
    dropped: bool = False  # the connection is closed, without obeying or answering
    released: threading.Event | None = None  # it waits for this before it is obeyed
    cut_after: int | None = None  # obeyed, but the answer ends after so many bytes of its body
    change: Callable[[bytes], bytes] = bytes  # what becomes of the body of the answer
    answer_status: int = 200  # the answer's, though it was obeyed
    longer: int = 0  # bytes that the Content-Length is off by
    drip_seconds: float = 0.0  # between each sixteenth of the body and the next
    reached: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        """Let the request that is held go on."""
        if self.released is not None:
            self.released.set()


class HubServer:
    """A running server; `close` it, or use it as a context manager.

    Args:
        home: empty folder that becomes the clients' `HF_HOME`: cache and stored tokens.
    """

    user = "tester"
    token = "hf_test_write"
    read_token = "hf_test_read"

    def __init__(self, home: Path) -> None:
        self.home = home
        self.repos: dict[tuple[str, str], Repo] = {}
        self.large_files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.unknown: list[str] = []
        self.faults: list[Fault] = []
        self.roles = {self.token: {"role": "write"}, self.read_token: {"role": "read"}}
        self.lock = threading.RLock()
        self._http = _QuietServer(("127.0.0.1", 0), type("Handler", (HubHandler,), {"hub": self}))
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.storage_url = f"http://localhost:{self.port}"  # another origin: clients must not send it their token
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        for fault in self.faults:
            fault.release()
        self._http.shutdown()
        self._http.server_close()

    def environment(self, token: str | None = token) -> dict[str, str]:
        """A whole environment for `subprocess`: this process's, with the Hub at this server and an empty home."""
        return {**os.environ, **self.variables(token)}

    def variables(self, token: str | None = token) -> dict[str, str]:
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(self.home),
            "HF_TOKEN": token or "",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }

    def use_in_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Point this process at the server: what the libraries took from the environment when they were imported."""
        import datasets
        from huggingface_hub import HfFileSystem, constants, hf_api

        cache = self.home / "hub"
        for name, value in {
            "ENDPOINT": self.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": self.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HOME": str(self.home),
            "HF_HUB_CACHE": str(cache),
            "HF_TOKEN_PATH": str(self.home / "token"),
            "HF_STORED_TOKENS_PATH": str(self.home / "stored_tokens"),
            "AGENT_HARNESSES_PATH": str(self.home / ".agent_harnesses.json"),
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_OFFLINE": False,
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(hf_api.api, "endpoint", self.url)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", self.url)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", self.home / "datasets")
        monkeypatch.setattr(
            datasets.config, "HUB_DATASETS_URL", self.url + "/datasets/{repo_id}/resolve/{revision}/{path}"
        )
        for name, text in self.variables().items():
            monkeypatch.setenv(name, text)
        HfFileSystem.clear_instance_cache()

    # ------------------------------------------------------------------------------------------- what tests arrange

    def create(
        self, repo_id: str, files: Mapping[str, bytes | str] | None = None, *, kind: str = "models", **options: Any
    ) -> Repo:
        """A repository with one commit of `files`; options: `private=True`."""
        repo = self.repos[kind, repo_id] = Repo(kind, repo_id, **options)
        repo.commit("initial commit", {".gitattributes": HubFile(b"*.safetensors filter=lfs\n")}, [], "main")
        if files:
            self.add_commit(repo, files)
        return repo

    def add_commit(self, repo: Repo, files: Mapping[str, bytes | str], *, branch: str = "main") -> Commit:
        """One more commit that adds or replaces `files`; the branch is made from `main` where it is new."""
        contents = {path: text.encode() if isinstance(text, str) else text for path, text in files.items()}
        added = {path: HubFile(content, is_large(path, len(content), content)) for path, content in contents.items()}
        self.large_files.update({file.sha256: file.content for file in added.values() if file.lfs})
        parent = repo.find(branch) or repo.head()
        return repo.commit("files", {**parent.tree, **added}, [Operation("add", path) for path in files], branch)

    def add_folder(self, repo_id: str, folder: Path, **options: Any) -> Repo:
        """`create` with the files of a folder."""
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        return self.create(repo_id, files, **options)

    def repo(self, repo_id: str, kind: str = "models") -> Repo:
        return self.repos[kind, repo_id]

    def fail(self, pattern: str, *, status: int, **how: Any) -> Fault:
        """The next such requests (one, or `times`) are answered with an error, and not obeyed."""
        return self._add(Fault(pattern, status=status, **how))

    def cut(self, pattern: str, *, after: int, times: int = 1) -> Fault:
        """They are obeyed, but the connection is closed after `after` bytes of the answer's body."""
        return self._add(Fault(pattern, times, cut_after=after))

    def drop(self, pattern: str, *, times: int = 1) -> Fault:
        """The connection is closed, without obeying or answering."""
        return self._add(Fault(pattern, times, dropped=True))

    def spoil(self, pattern: str, change: Callable[[bytes], bytes] = bytes, *, status: int = 200, **how: Any) -> Fault:
        """They are obeyed, but answered with `status` and what `change` makes of the body; `how`: as `Fault`'s."""
        return self._add(Fault(pattern, change=change, answer_status=status, **how))

    def hold(self, pattern: str) -> Fault:
        """The next such request waits until the fault's `release()`; its `reached` event says that it has come."""
        return self._add(Fault(pattern, released=threading.Event()))

    def _add(self, fault: Fault) -> Fault:
        self.faults.append(fault)
        return fault

    def take_fault(self, request: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.pattern, request):
                    fault.times -= 1
                    return fault
        return None


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: clients that hang up are part of the tests."""


class HubHandler(HubRoutes, BaseHTTPRequestHandler):
    hub: ClassVar[HubServer]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    body: bytes
    query: dict[str, list[str]]
    token: str | None
    fault: Fault | None

    def log_message(self, *arguments: Any) -> None:
        """Nothing."""

    def _serve(self) -> None:
        self.body = self._read_body()
        address = urlsplit(self.path)
        self.query, request = parse_qs(address.query), f"{self.command} {address.path}"
        self.hub.requests.append(request)
        self.fault = self.hub.take_fault(request)
        if self.fault is not None:
            self.fault.reached.set()
            if self.fault.released is not None:
                self.fault.released.wait(60)
            if self.fault.dropped:
                self.close_connection = True
                return
        try:
            if self.fault is not None and self.fault.status:
                raise HubError(self.fault.status, self.fault.message, self.fault.error_code)
            self.token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
            if self.token is not None and self.token not in self.hub.roles:
                raise HubError(401, "Invalid credentials in Authorization header")
            for pattern, answer in ROUTES:
                if match := re.fullmatch(pattern, request):
                    with self.hub.lock:
                        result = answer(self, *(unquote(group or "") for group in match.groups()))
                    return self.reply(200, result) if result is not None else None
            self.hub.unknown.append(request)
            raise HubError(404, f"this test server has no route {request}")
        except HubError as error:
            headers = {"X-Error-Message": str(error)} | ({"X-Error-Code": error.code} if error.code else {})
            self.reply(error.status, {"error": str(error)}, headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def reply(self, status: int, content: Any = b"", headers: Mapping[str, str] | None = None) -> None:
        """Answer with JSON, or with bytes, of which a Range header takes its part."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        extra = {"Content-Type": kind, **(headers or {})}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if status == 200 and wanted and isinstance(content, bytes):
            start, end = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
            extra["Content-Range"] = f"bytes {start}-{end}/{len(data)}" if start < len(data) else f"bytes */{len(data)}"
            status, data = (206, data[start : end + 1]) if start < len(data) else (416, b"")
        fault = self.fault or Fault("")
        data, status = fault.change(data), fault.answer_status if fault.answer_status != 200 else status
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data) + fault.longer), **extra}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            sent = data[: fault.cut_after]
            step = len(sent) // 16 + 1 if fault.drip_seconds else len(sent) + 1
            for start in range(0, len(sent), step):
                self.wfile.write(sent[start : start + step])
                self.wfile.flush()
                time.sleep(fault.drip_seconds)
        self.wfile.flush()
        self.close_connection = self.close_connection or fault.cut_after is not None or fault.longer != 0
