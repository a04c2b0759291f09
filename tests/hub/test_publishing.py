"""Publishing as its user meets it: training that pushes, in processes of its own."""

from __future__ import annotations

import json
import logging
import shlex
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from hub_server import HubServer
from huggingface_hub import close_session
from launching import LAUNCH_TWO, TINY, finish, start, start_command, wait_for
from run_exports import FILES, PUSHED, make_export

from pix2pix_hub.cli import main, parse_training_config
from pix2pix_hub.cli.publishing import Publisher
from pix2pix_hub.config import preset_config
from pix2pix_hub.hub import push
from pix2pix_hub.training.trainer import Pix2PixTrainer

REPO = "user/pix2pix-facades"
COMMITS = "POST .*/commit/"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    with HubServer(tmp_path_factory.mktemp("hub")) as server:
        server.user = "user"
        yield server
    close_session()
    assert not server.unknown


@pytest.fixture(scope="module")
def trained(server: HubServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A training that pushes, on two processes, the first commit refused; its folder and what it said."""
    place = tmp_path_factory.mktemp("place")
    server.fail(COMMITS, status=503)
    options = ["--push-to-hub", REPO, *TINY, "--push-every", "1"]
    status, output = finish(*options, cwd=place, launcher=LAUNCH_TWO, variables=server.variables())
    assert status == 0, output
    return place, output


def test_two_processes_train_one_model_and_one_of_them_pushes_it(server: HubServer, trained: tuple[Path, str]) -> None:
    place, output = trained
    run = place / "runs" / "synthetic_demo_001"
    assert output.count("The model is in runs/synthetic_demo_001/model") == 1
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries if entry["event"] == "train"] == list(range(1, 10))  # 10 pairs, 2x2
    assert json.loads((run / "training_config.json").read_text())["processes"] == 2

    repo = server.repo(REPO)
    assert output.count("answered 503") == 1 and "trying again in 2 s" in output
    assert output.count("Pushed to ") == len(repo.commits) - 1 in (1, 2, 3)  # of 3 epochs those that came in time
    assert sum("whoami" in request for request in server.requests) == 1
    assert repo.head().title == "pix2pix_hub model: epoch 3, step 9"
    assert all(set(commit.tree) == PUSHED for commit in repo.commits[1:])
    for name in FILES - {"README.md"}:
        assert repo.read(name) == (run / "model" / name).read_bytes()
    assert b'from_pretrained("user/pix2pix-facades")' in (run / "model" / "README.md").read_bytes()
    assert "--push-to-hub user/pix2pix-facades" in repo.read("README.md").decode()


LOAD = """
import torch
from pix2pix_hub import PatchGANDiscriminator, UNetGenerator
source = torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32)
with torch.no_grad():
    generated = UNetGenerator.from_pretrained(MODEL)(source)
    outputs = [generated, PatchGANDiscriminator.from_pretrained(MODEL)(torch.cat([source, generated], 1))]
"""


def test_what_was_trained_is_what_another_process_loads_online_and_offline(
    server: HubServer, trained: tuple[Path, str]
) -> None:
    place = trained[0]
    here: dict[str, Any] = {"MODEL": str(place / "runs" / "synthetic_demo_001" / "model")}
    exec(LOAD, here)
    for offline in ("0", "1"):
        asked = len(server.requests)
        code = f"MODEL = {REPO!r}\n{LOAD}\ntorch.save(outputs, 'outputs.pt')"
        variables = server.variables() | {"HF_HUB_OFFLINE": offline}
        assert start_command(["-c", code], cwd=place, variables=variables).wait(120) == 0
        assert (len(server.requests) > asked) == (offline == "0")
        loaded = torch.load(place / "outputs.pt", weights_only=True)
        assert all(map(torch.equal, loaded, here["outputs"]))


def test_a_stopped_run_does_not_wait_for_its_push_and_says_how_to_do_it_later(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = server.hold(COMMITS)
    options = [*TINY, "--epochs", "200", "--output-dir", "run", "--push-to-hub", "user/stopped", "--push-every", "1"]
    process = start(*options, "--hub-private", cwd=tmp_path, variables=server.variables())
    wait_for(process, held.reached.is_set)
    log = tmp_path / "run" / "metrics.jsonl"
    written = log.stat().st_size
    wait_for(process, lambda: log.stat().st_size > written + 2000)  # the push hangs, training goes on
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert server.repo("user/stopped").files() == {".gitattributes"}
    held.release()
    assert "Not on the Hub yet; run/model stays. Push it with:" in " ".join(output.split())
    (command,) = [line for line in output.splitlines() if line.startswith("  pix2pix-hub push")]
    server.use_in_process(monkeypatch)
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(command)[1:]) == 0
    assert server.repo("user/stopped").private
    assert server.repo("user/stopped").files() == PUSHED


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder, and Accelerate's state of this test's own."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def test_pushes_that_all_fail_end_a_run_well_and_the_export_stays(
    hub: HubServer, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.fail(COMMITS, status=403, times=99, message="quota")
    assert (
        main(["train", *TINY, "--epochs", "2", "--output-dir", "run", "--push-to-hub", "tester/a", "--push-every", "1"])
        == 0
    )
    said = capsys.readouterr().err
    assert "Not pushed to tester/a: the token may not write to tester/a (quota)." in said
    assert "  pix2pix-hub push run tester/a\n" in said
    assert {path.relative_to("run/model").as_posix() for path in Path("run/model").rglob("*.*")} == FILES
    assert hub.repo("tester/a").files() == {".gitattributes"}


@pytest.mark.parametrize(
    "command",
    [
        lambda repo_id: main(["train", *TINY, "--push-to-hub", repo_id]),
        lambda repo_id: main(["data", "build", "no/such/pairs", "--push", repo_id]),
    ],
)
def test_who_may_not_push_is_told_before_anything_is_read_or_made(
    command: Callable[[str], int],
    hub: HubServer,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for token, repo_id, words in (
        ("", "tester/a", "needs a Hub token. Run `hf auth login`"),
        (hub.read_token, "tester/a", "may only read"),
        (hub.token, "tester/--", "is no repository id"),
        (hub.token, "nobody/a", "push to tester/a"),
    ):
        monkeypatch.setenv("HF_TOKEN", token)
        assert command(repo_id) == 2
        assert words in capsys.readouterr().err
    assert not hub.repos and not [path for path in place.iterdir() if path.name != "hf_home"]


def test_a_dry_run_looks_at_the_token_and_makes_nothing(hub: HubServer, place: Path) -> None:
    assert main(["train", *TINY, "--push-to-hub", "tester/a", "--dry-run"]) == 0
    assert "GET /api/whoami-v2" in hub.requests and not hub.repos


def test_fine_tuning_from_the_hub(hub: HubServer, place: Path) -> None:
    run = [*TINY, "--epochs", "1", "--output-dir"]
    assert main(["train", *run, "first", "--push-to-hub", "tester/a"]) == 0
    commit = hub.repo("tester/a").head().oid
    assert main(["train", *run, "second", "--init-from", f"tester/a@{commit}", "--push-to-hub", "tester/b"]) == 0
    assert json.loads(Path("second/model/training_config.json").read_text())["started_from"] == commit
    assert b"\nbase_model: tester/a\n" in hub.repo("tester/b").read("README.md")


# --- pushing while training goes on ---


@pytest.fixture
def publisher(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> Publisher:
    """Of a run that pushes to `tester/a`, after training has begun."""
    monkeypatch.setattr(push, "WAITS", (0.0, 0.0))
    publisher = Publisher(preset_config("demo", push_to_hub="tester/a", push_every=1), pushes=True)
    publisher.open()
    return publisher


def titles(hub: HubServer) -> list[str]:
    return [commit.title.removeprefix("pix2pix_hub model: epoch 2, ") for commit in hub.repo("tester/a").commits[1:]]


def test_what_is_under_way_is_pushed_though_it_is_replaced_and_of_the_others_the_newest(
    hub: HubServer, publisher: Publisher, tmp_path: Path
) -> None:
    held = hub.hold("GET /api/models/")  # before anything is read
    run = tmp_path / "run"
    publisher.on_export(make_export(run / "model", seed=1))
    weights = (run / "model" / "model.safetensors").read_bytes()
    assert held.reached.wait(30)
    for seed in (2, 3):
        publisher.on_export(make_export(run / "model", seed=seed))
    assert (run / "model" / "model.safetensors").read_bytes() != weights
    held.release()
    assert publisher.finish(run) is None
    assert titles(hub) == ["step 7", "step 9"]
    first = hub.repo("tester/a").commits[1].tree
    assert first["model.safetensors"].content == weights
    assert {path.name for path in run.iterdir()} == {"model", "training_config.json", "samples.png"}


def test_a_failure_is_a_line_and_the_next_export_is_tried(
    hub: HubServer, publisher: Publisher, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pix2pix_hub")
    hub.fail(COMMITS, status=403, message="quota")
    publisher.on_export(make_export(tmp_path / "run" / "model", seed=1))
    publisher.finish(tmp_path / "run")
    line, advice = caplog.messages
    assert line.startswith("Not pushed to tester/a: the token may not write to tester/a (quota).")
    assert line.endswith("Training goes on.") and "\n" not in line
    assert "Not on the Hub yet (the token may not write" in advice and "push" in advice.splitlines()[1]
    hub.fail(COMMITS, status=500, times=2)
    publisher.on_export(make_export(tmp_path / "run" / "model", seed=2))
    publisher.finish(tmp_path / "run")
    assert titles(hub) == ["step 8"]
    assert caplog.messages[-1].startswith("Pushed to http")


@pytest.mark.parametrize("broken", ["commit_export", "shutil.copytree"])
def test_an_unexpected_error_does_not_reach_training(
    broken: str, hub: HubServer, publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError("a full disk")

    export = make_export(tmp_path / "run" / "model")
    with monkeypatch.context() as patch:
        patch.setattr(f"pix2pix_hub.hub.push.{broken}", fail)
        publisher.on_export(export)
        publisher.finish(tmp_path / "run")
    assert titles(hub) == []


def test_a_trainer_in_python_hands_its_exports_to_whoever_wants_them(place: Path) -> None:
    seen: list[tuple[str, bool]] = []
    trainer = Pix2PixTrainer(
        parse_training_config([*TINY, "--epochs", "1"]),
        complete_export=lambda partial, folder: (partial / "note.txt").touch(),
        on_export=lambda folder: seen.append((folder.name, (folder / "note.txt").is_file())),
    )
    trainer.train()
    assert seen == [("model_best", True), ("model", True)]
