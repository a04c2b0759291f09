"""Pushing from a thread: training goes on, whatever the Hub does."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hub_server import HubServer
from run_exports import FILES, make_export

from pix2pix_hub.hub import push
from pix2pix_hub.hub.account import open_repo
from pix2pix_hub.hub.background import BackgroundPush
from pix2pix_hub.hub.push import commit_export

REPO = "tester/streets"
COMMITS = "POST .*/commit/"


def never() -> bool:
    return False


@pytest.fixture
def background(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[BackgroundPush]:
    monkeypatch.setattr(push, "WAITS", (0.0, 0.0))
    open_repo(REPO)
    background = BackgroundPush(partial(commit_export, repo_id=REPO), REPO)
    yield background
    background.abandon()
    if background._thread is not None:
        background._thread.join(30)


def titles(hub: HubServer) -> list[str]:
    return [commit.title.removeprefix("pix2pix_hub model: epoch 2, ") for commit in hub.repo(REPO).commits[1:]]


def test_what_was_submitted_is_pushed_though_the_export_is_replaced(
    hub: HubServer, background: BackgroundPush, tmp_path: Path
) -> None:
    export = make_export(tmp_path / "run" / "model", seed=1)
    weights = (export / "model.safetensors").read_bytes()
    held = hub.hold("GET /api/models/")  # before anything is read
    background.submit(export)
    assert held.reached.wait(30)
    make_export(export, seed=2)
    assert (export / "model.safetensors").read_bytes() != weights
    held.release()
    assert background.finish(never)
    assert hub.repo(REPO).read("model.safetensors") == weights
    assert titles(hub) == ["step 7"]
    assert {path.name for path in export.parent.iterdir()} == {"model", "training_config.json", "samples.png"}


def test_of_those_that_wait_only_the_newest_is_pushed(
    hub: HubServer, background: BackgroundPush, tmp_path: Path
) -> None:
    held = hub.hold(COMMITS)
    background.submit(make_export(tmp_path / "run" / "model", seed=1))
    assert held.reached.wait(30)
    for seed in (2, 3, 4):
        background.submit(make_export(tmp_path / "run" / "model", seed=seed))
    assert len(list((tmp_path / "run").glob(".push_*"))) == 2
    held.release()
    assert background.finish(never)
    assert titles(hub) == ["step 7", "step 10"]


def test_a_newer_export_ends_the_trying_of_an_older_one(
    hub: HubServer, background: BackgroundPush, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "WAITS", (3600.0,))
    hub.fail(COMMITS, status=503)
    waiting = threading.Event()
    give_up = background._give_up
    monkeypatch.setattr(background, "_give_up", lambda seconds: waiting.set() or give_up(seconds))
    background.submit(make_export(tmp_path / "run" / "model", seed=1))
    assert waiting.wait(30)
    background.submit(make_export(tmp_path / "run" / "model", seed=2))
    assert background.finish(never)
    assert titles(hub) == ["step 8"]


def test_a_failure_is_a_line_and_the_next_export_is_tried(
    hub: HubServer, background: BackgroundPush, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pix2pix_hub")
    hub.fail(COMMITS, status=403, message="quota")
    background.submit(make_export(tmp_path / "run" / "model", seed=1))
    assert not background.finish(never)
    (line,) = caplog.messages
    assert line.startswith(f"Not pushed to {REPO}: the token may not write to {REPO} (quota).")
    assert line.endswith("Training goes on.") and "\n" not in line
    again = BackgroundPush(partial(commit_export, repo_id=REPO), REPO)
    hub.fail(COMMITS, status=500, times=2)
    again.submit(make_export(tmp_path / "run" / "model", seed=2))
    assert again.finish(never)
    assert titles(hub) == ["step 8"]
    assert hub.repo(REPO).files() == FILES | {".gitattributes"}
    assert caplog.messages[-1].startswith("Pushed to http")


def test_an_unexpected_error_does_not_reach_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def explode(folder: Path) -> str:
        raise RuntimeError("a bug")

    background = BackgroundPush(explode, REPO)
    background.submit(make_export(tmp_path / "run" / "model"))
    assert not background.finish(never)
    assert background.failure == "RuntimeError('a bug')"


def test_abandoning_waits_for_nothing(hub: HubServer, background: BackgroundPush, tmp_path: Path) -> None:
    held = hub.hold(COMMITS)
    background.submit(make_export(tmp_path / "run" / "model", seed=1))
    assert held.reached.wait(30)
    assert not background.abandon()
    assert not list((tmp_path / "run").glob(".push_*"))
    assert background._thread is not None and background._thread.daemon
    assert not titles(hub)
    held.release()


def test_finishing_stops_when_told_to(hub: HubServer, background: BackgroundPush, tmp_path: Path) -> None:
    held = hub.hold(COMMITS)
    background.submit(make_export(tmp_path / "run" / "model", seed=1))
    assert held.reached.wait(30)
    assert not background.finish(held.reached.is_set)
    held.release()


def test_snapshots_of_a_killed_process_are_removed(background: BackgroundPush, tmp_path: Path) -> None:
    export = make_export(tmp_path / "run" / "model")
    shutil.copytree(export, tmp_path / "run" / ".push_killed")
    background.submit(export)
    assert background.finish(never)
    assert not list((tmp_path / "run").glob(".push_*"))
