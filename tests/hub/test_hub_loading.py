"""Loading from the Hub, from end to end: what is wrong is said, and nothing half-finished is left to be used."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from accelerate.state import AcceleratorState
from hub_server import HubServer
from run_exports import REPO, make_export

from pix2pix_hub.cli import main
from pix2pix_hub.models import UNetGenerator
from pix2pix_hub.util import UserError

Arrange = Callable[[HubServer, pytest.MonkeyPatch], Any]


@pytest.fixture(autouse=True)
def _arranged(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A published export; the client does not wait between its attempts."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.add_folder(REPO, make_export(tmp_path / "run" / "model"))
    yield
    hub.faults.clear()


def private(hub: HubServer, patch: pytest.MonkeyPatch) -> None:
    hub.repo(REPO).private = True
    patch.setenv("HF_TOKEN", "")


def cut(hub: HubServer, patch: pytest.MonkeyPatch) -> None:
    hub.cut("GET /storage/", after=1000)
    hub.cut("GET /storage/", after=0, times=99)


def pickle_only(hub: HubServer, patch: pytest.MonkeyPatch) -> None:
    config = hub.repo(REPO).read("config.json")
    hub.create(REPO, {"config.json": config, "pytorch_model.bin": b"\x80\x04pickle"})


OTHER = {"config.json": '{"architecture": "OtherNet"}'}
CASES: list[tuple[Arrange, str, str]] = [
    (private, "", r"no repository that you may read.*hf auth login"),
    (lambda hub, patch: hub.repos.clear(), "", r"no repository that you may read.*check the name"),
    (lambda hub, patch: None, "v9", r"has no revision 'v9'"),
    (lambda hub, patch: hub.fail("GET /api/models/", status=503, times=99), "", r"answered 503.*again later"),
    (cut, "", r"broke off.*Nothing half-finished is used: try again"),
    (lambda hub, patch: hub.add_commit(hub.repo(REPO), OTHER), "", r"OtherNet"),
    (pickle_only, "", r"holds no model.safetensors, and pickled weights.*are never loaded"),
]


def assert_cache_is_whole(home: Path) -> None:
    """Every file of the cache is what its name, a hash, says."""
    for blob in home.rglob("blobs/*"):
        content = blob.read_bytes()
        git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        assert blob.name in (git, hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize(("arrange", "revision", "words"), CASES)
def test_what_cannot_be_loaded_is_explained_and_the_cache_stays_whole(
    arrange: Arrange, revision: str, words: str, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrange(hub, monkeypatch)
    with pytest.raises(UserError, match=words):
        UNetGenerator.from_pretrained(REPO, revision=revision or None)
    assert_cache_is_whole(hub.home)
    assert not list(hub.home.rglob("*.safetensors"))


def test_a_broken_download_works_the_next_time(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    cut(hub, monkeypatch)
    with pytest.raises(UserError):
        UNetGenerator.from_pretrained(REPO)
    hub.faults.clear()
    assert UNetGenerator.from_pretrained(REPO)
    assert_cache_is_whole(hub.home)
    asked = len(hub.requests)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert UNetGenerator.from_pretrained(REPO)
    assert len(hub.requests) == asked


@pytest.mark.parametrize(("arrange", "revision", "words"), [CASES[2], *CASES[4:]])
def test_training_on_from_what_cannot_be_loaded_writes_no_run(
    arrange: Arrange,
    revision: str,
    words: str,
    hub: HubServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arrange(hub, monkeypatch)
    (tmp_path / "place").mkdir()
    monkeypatch.chdir(tmp_path / "place")
    name = f"{REPO}@{revision}" if revision else REPO
    try:
        assert main(["train", "--init-from", name, "--max-train-pairs", "4", "--num-workers", "0"]) == 2
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    answer = " ".join(capsys.readouterr().err.split())
    assert f"--init-from {name}: " in answer and "Traceback" not in answer
    assert re.search(words, answer)
    assert not list((tmp_path / "place").iterdir())
