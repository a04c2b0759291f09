"""Fetching a model's files: only those asked for, from the cache where there is no network, and failures explained."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_server import HubServer
from huggingface_hub import constants

from pix2pix_hub.export import export_of
from pix2pix_hub.models import PatchGANDiscriminator, UNetGenerator
from pix2pix_hub.models.fetch import commit_of, fetch_files
from pix2pix_hub.util import UserError

REPO = "tester/model"
FILES = {"config.json": b"{}", "model.safetensors": b"weights", "pytorch_model.bin": b"pickle", "a/config.json": b"[]"}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client's, between its attempts


@pytest.fixture
def stocked(hub: HubServer) -> HubServer:
    """A Hub whose `tester/model` holds FILES."""
    hub.create(REPO, FILES)
    return hub


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_only_the_named_files_are_fetched(stocked: HubServer) -> None:
    folder = fetch_files(REPO, ["config.json", "a/config.json", "absent.json"])
    assert names_in(folder) == ["a/config.json", "config.json"]
    assert (folder / "config.json").read_bytes() == FILES["config.json"]
    assert not [request for request in stocked.requests if "pytorch_model" in request or "safetensors" in request]
    assert commit_of(folder) == stocked.repo(REPO).head().oid


def test_without_network_the_cache_is_used(stocked: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    online = fetch_files(REPO, ["config.json"])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    stocked.requests.clear()
    assert fetch_files(REPO, ["config.json"]) == online
    assert fetch_files(REPO, ["config.json"], revision=commit_of(online)) == online
    assert not stocked.requests
    with pytest.raises(UserError, match=r"other/model.*HF_HUB_OFFLINE forbids.*hf download other/model"):
        fetch_files("other/model", ["config.json"])


@pytest.mark.parametrize(
    ("status", "error_code", "message", "words"),
    [
        (403, "GatedRepo", "", r"tester/model is gated: ask for access at http.*/tester/model"),
        (403, "", "Access to this resource is disabled.", r"tester/model has been disabled on http.*use another"),
        (403, "", "", r"answered 403 Forbidden: you may not read it"),
        (503, "", "", r"answered 503 Service Unavailable: the Hub is in trouble.*again later"),
        (429, "", "", r"answered 429 Too Many Requests: too many requests. Wait"),
        (418, "", "", r"answered 418 .*expected a repository of a model"),
    ],
)
def test_what_the_hub_refuses_is_explained(
    status: int, error_code: str, message: str, words: str, stocked: HubServer
) -> None:
    stocked.fail("GET /api/models", status=status, error_code=error_code, message=message, times=9)
    with pytest.raises(UserError, match=words):
        fetch_files(REPO, ["config.json"])


LONG = "x" * 5000


@pytest.mark.parametrize(
    "name",
    ["a/b/c/d", "user/--", "user name", LONG, f"user/{LONG}", "a\0b/c", "a/b\n", "\ud800/x", "~nobody9/x/y"],
)
def test_a_name_that_no_repository_can_have_is_told_so(name: str, hub: HubServer) -> None:
    with pytest.raises(UserError, match="no local folder, nor can it be a repository") as caught:
        fetch_files(name, ["config.json"])
    assert not hub.requests and len(str(caught.value).encode()) < 500
    assert export_of(name) == name


@pytest.mark.parametrize("revision", [LONG, "a\0b", "a\nb", "\ud800"])
def test_a_revision_that_none_can_be_is_told_so(revision: str, hub: HubServer) -> None:
    for name, given in ((REPO, revision), (f"{REPO}@{revision}", None)):
        with pytest.raises(UserError, match="can be no revision|nor can it be a repository"):
            fetch_files(name, ["config.json"], revision=given)
    assert not hub.requests


@pytest.mark.parametrize("fault", ["dropped", "cut", "no JSON", "other JSON", "500", "longer"])
def test_where_answers_break_off_a_whole_cache_is_used_and_said(
    fault: str, stocked: HubServer, caplog: pytest.LogCaptureFixture
) -> None:
    def spoil() -> None:
        stocked.faults.clear()
        every = "GET /api/models/"
        if fault == "dropped":
            stocked.drop(every, times=99)
        elif fault == "cut":
            stocked.cut(every, after=20, times=99)
        elif fault == "500":
            stocked.spoil(every, status=500, times=99)
        elif fault == "longer":
            stocked.spoil(every, longer=9, times=99)
        else:
            stocked.spoil(every, lambda body: b"<html>" if fault == "no JSON" else b"[7]", times=99)

    spoil()
    with pytest.raises(UserError):  # there is no cache yet
        fetch_files(REPO, ["config.json"])
    stocked.faults.clear()
    online = fetch_files(REPO, ["config.json"])
    spoil()
    assert fetch_files(REPO, ["config.json"]) == online
    with pytest.raises(UserError):  # it is not whole as to these
        fetch_files(REPO, ["config.json", "a/config.json"])
    if fault != "500":  # where the client itself turns to the cache
        assert "What the cache has is whole, and is used" in caplog.text
        with pytest.raises(UserError):
            fetch_files(REPO, ["config.json"], force_download=True)


def test_whether_a_token_was_sent_is_mentioned(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="A token was sent: if it is private, see that the token may read it"):
        fetch_files("tester/absent", ["config.json"])
    with pytest.raises(UserError, match="No token was sent: if it is private, type `hf auth login`"):
        fetch_files("tester/absent", ["config.json"], token=False)
    monkeypatch.setenv("HF_TOKEN", "")
    with pytest.raises(UserError, match="needs one on this machine: type `hf auth login`"):
        fetch_files("tester/absent", ["config.json"], token=True)


def test_a_name_may_say_its_revision(stocked: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But a folder of that very name is what is meant."""
    repo = stocked.repo(REPO)
    first = repo.head().oid
    stocked.add_commit(repo, {"config.json": b"later"})
    stocked.add_commit(repo, {"config.json": b"aside"}, branch="try/2")
    for name, content in ((REPO, b"later"), (f"{REPO}@{first}", b"{}"), (f"{REPO}@try/2", b"aside")):
        assert (fetch_files(name, ["config.json"]) / "config.json").read_bytes() == content
    assert fetch_files(f"{REPO}@{first}", ["config.json"], revision=first).name == first
    with pytest.raises(UserError, match=rf"tester/model@{first} names revision {first}, and main came beside it"):
        fetch_files(f"{REPO}@{first}", ["config.json"], revision="main")
    with pytest.raises(UserError, match=r"tester/model has no revision 'v9'"):
        fetch_files(f"{REPO}@v9", ["config.json"])
    monkeypatch.chdir(tmp_path)
    Path(f"{REPO}@v9").mkdir(parents=True)
    assert fetch_files(f"{REPO}@v9", ["config.json"]) == Path(f"{REPO}@v9")


def test_a_hub_out_of_reach_is_named(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody listens
    monkeypatch.setattr("huggingface_hub.hf_api.api.endpoint", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"nor complete in the cache, and http://127.0.0.1:9 could not be reached"):
        fetch_files(REPO, ["config.json"])


def test_a_folder_that_is_not_there_names_the_closest(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "runs" / "demo" / "model").mkdir(parents=True)
    with pytest.raises(UserError, match=r"no local folder.* Did you mean .*runs/demo/model\?"):
        fetch_files(tmp_path / "runs" / "demo" / "modle", ["config.json"])
    with pytest.raises(UserError, match=r"The folder .*/runs exists, but holds no other\."):
        fetch_files(f"{tmp_path}/runs/other", ["config.json"])
    (tmp_path / "weights.pth").touch()
    with pytest.raises(UserError, match=r"weights.pth is a file: name the folder"):
        fetch_files(tmp_path / "weights.pth", ["config.json"])


@pytest.mark.parametrize(
    "name",
    ["../config.json", "/etc/passwd", "a/../../b", "*.json", "config[0].json", "a\\b", "a//b", "a\0b", LONG],
)
def test_names_that_lead_elsewhere_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no file of a model"):
        fetch_files(tmp_path, [name])


def test_a_config_is_looked_at_before_weights_are_fetched(stocked: HubServer) -> None:
    with pytest.raises(UserError, match="describes an unnamed network, expected UNetGenerator"):
        UNetGenerator.from_pretrained(REPO)
    assert not [request for request in stocked.requests if "safetensors" in request]


def test_a_network_pushed_by_itself_loads_from_where_it_lies(hub: HubServer) -> None:
    """With the mixin's own `push_to_hub`, which puts it at the top of its repository."""
    network = PatchGANDiscriminator(3, base_channels=4)
    network.push_to_hub("tester/judge")
    assert hub.repo("tester/judge").files() >= {"config.json", "model.safetensors", "README.md"}
    assert PatchGANDiscriminator.from_pretrained("tester/judge").config == network.config


def test_a_run_stands_for_its_export(tmp_path: Path) -> None:
    (tmp_path / "run" / "model").mkdir(parents=True)
    assert export_of(tmp_path / "run") == tmp_path / "run"
    (tmp_path / "run" / "model" / "config.json").touch()
    assert export_of(tmp_path / "run") == tmp_path / "run" / "model"
    assert export_of("user/name") == "user/name"
