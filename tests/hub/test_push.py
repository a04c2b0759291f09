"""Pushing an export: what is on the Hub afterwards, and what is said when it does not work."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import HubServer, Operation
from launching import ROOT, TINY, free_port, reachable, start_command, wait_for
from run_exports import FILES, PUSHED, REPO, make_export

from pix2pix_hub.cli import main
from pix2pix_hub.hub import push
from pix2pix_hub.hub.card import MARKER
from pix2pix_hub.hub.package import WHEEL_NAME
from pix2pix_hub.hub.push import PushError, find_export, push_export
from pix2pix_hub.models import PatchGANDiscriminator, UNetGenerator
from pix2pix_hub.util import UserError

COMMIT = "POST .*/commit/"


@pytest.fixture
def export(tmp_path: Path) -> Path:
    return make_export(tmp_path / "run" / "model")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "WAITS", (0.0, 0.0, 0.0))


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is tried again."""
    monkeypatch.setattr(push, "WAITS", ())


def test_a_push_is_one_commit_with_exactly_the_files_of_the_export(hub: HubServer, export: Path) -> None:
    (export / "notes.txt").write_text("mine")
    before = {path: path.read_bytes() for path in export.rglob("*") if path.is_file()}
    url = push_export(export, "streets", private=True)  # a name alone is the user's own
    repo = hub.repo(REPO)
    assert len(repo.commits) == 2 and repo.private
    assert sum("whoami" in request for request in hub.requests) == 1
    assert url == f"{hub.url}/{REPO}/commit/{repo.head().oid}"
    assert repo.head().title == "pix2pix_hub model: epoch 2, step 6"
    assert set(repo.head().operations) == {Operation("add", path) for path in PUSHED - {".gitattributes"}}
    assert all(repo.read(path) == (export / path).read_bytes() for path in FILES - {"README.md"})
    assert {path: path.read_bytes() for path in export.rglob("*") if path.is_file()} == before
    for network in (UNetGenerator, PatchGANDiscriminator):
        published, local = (network.from_pretrained(place).state_dict() for place in (REPO, export))
        assert published.keys() == local.keys()
        assert all(torch.equal(published[name], local[name]) for name in local)


def test_a_second_push_replaces_deletes_what_is_stale_and_leaves_what_people_added(
    hub: HubServer, export: Path, tmp_path: Path
) -> None:
    push_export(export, REPO)
    kept = {"LICENSE", "discriminator/about.txt", "old.png"}
    hub.add_commit(hub.repo(REPO), dict.fromkeys(kept, "theirs"))
    newer = make_export(tmp_path / "newer" / "model", seed=1)
    shutil.rmtree(newer / "discriminator")
    (newer / "samples.png").unlink()
    push_export(newer, REPO, message="no judge")
    repo, stale = hub.repo(REPO), {name for name in FILES if name.startswith(("discriminator/", "samples"))}
    assert repo.head().title == "no judge"
    changed = {"README.md", "metrics.json", "model.safetensors"}  # the others are the same as before
    assert set(repo.head().operations) == {
        *(Operation("delete", path) for path in stale),
        *(Operation("add", path) for path in changed),
    }
    assert repo.files() == (PUSHED - stale) | kept


def test_a_branch_is_made_and_the_main_one_left_alone(hub: HubServer, export: Path) -> None:
    push_export(export, REPO, revision="dev")
    assert hub.repo(REPO).files("dev") == PUSHED
    assert hub.repo(REPO).files() == {".gitattributes"}
    card = hub.repo(REPO).read("README.md", "dev").decode()
    assert f"{REPO}/resolve/dev/{WHEEL_NAME}`" in card and f"# {REPO.split('/')[1]}\n" in card
    (named,) = re.findall(r'Pix2PixPipeline.from_pretrained\("(.*)"\)', card)
    assert named == f"{REPO}@dev" and UNetGenerator.from_pretrained(named)


def test_the_cards_line_installs_a_package_that_trains_translates_and_shows(
    hub: HubServer, export: Path, tmp_path: Path
) -> None:
    """The wheel beside the model, by itself, far from the checkout; an older one goes."""
    hub.add_commit(hub.create(REPO), {"pix2pix_hub-0.0.1-py3-none-any.whl": b"old"})
    push_export(export, REPO)
    assert hub.repo(REPO).files() == PUSHED
    line = f"After `pip install https://huggingface.co/{REPO}/resolve/main/{WHEEL_NAME}`:"
    assert line in hub.repo(REPO).read("README.md").decode()
    (tmp_path / WHEEL_NAME).write_bytes(hub.repo(REPO).read(WHEEL_NAME))
    site = tmp_path / "site"
    pip = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site))
    subprocess.run([sys.executable, *pip, str(tmp_path / WHEEL_NAME)], check=True)
    assert (site / "bin" / "pix2pix-hub").is_file() and (site / "pix2pix_hub" / "py.typed").is_file()
    variables = {"PYTHONPATH": str(site), "GRADIO_SERVER_PORT": str(port := free_port())}
    start = {"cwd": tmp_path, "variables": variables}
    for words in (
        ["train", *TINY, "--epochs", "1", "--output-dir", "trained"],
        ["translate", "trained", str(ROOT / "docs" / "label_map.png"), "--output", "made"],
    ):
        process = start_command(["-m", "pix2pix_hub.cli", *words], **start)
        said, _ = process.communicate()
        assert process.returncode == 0, said
    assert (tmp_path / "made" / "label_map.png").is_file()
    app = start_command(["-m", "pix2pix_hub.cli", "app", "--model", "trained"], **start)
    try:
        wait_for(app, lambda: reachable(port), timeout=600)
    finally:
        app.terminate()
        app.communicate()


@pytest.mark.parametrize(
    "fault",
    [
        lambda hub: hub.fail(COMMIT, status=503, times=3),
        lambda hub: hub.fail("GET /api/whoami", status=502, times=3),
        lambda hub: hub.cut(COMMIT, after=5),  # the answer is lost
    ],
)
def test_what_fails_for_the_moment_is_tried_again(fault: Callable[..., Any], hub: HubServer, export: Path) -> None:
    fault(hub)
    push_export(export, REPO)
    assert [commit.title for commit in hub.repo(REPO).commits[1:]] == ["pix2pix_hub model: epoch 2, step 6"]
    assert hub.repo(REPO).files() == PUSHED
    uploads = [request for request in hub.requests if request.startswith("PUT /lfs/")]
    assert len(uploads) == len(set(uploads)) == 4  # nothing is uploaded again


def test_a_hub_that_cannot_be_reached_is_given_up_soon_unless_it_has_answered_before(
    hub: HubServer, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(push, "WAITS", (11.0, 12.0, 13.0, 14.0))
    monkeypatch.setattr("time.sleep", lambda wait: waits.append(wait) if wait > 10 else None)  # others sleep, too
    hub.drop("GET /api/whoami", times=3)
    with pytest.raises(PushError, match="failed 3 times, at last because the Hub cannot be reached"):
        push_export(export, REPO)
    assert waits == [11.0, 12.0]
    hub.drop("GET /api/whoami", times=2)
    hub.drop("GET /api/models/", times=3)
    push_export(export, REPO)
    assert waits[2:] == [11.0, 12.0, 11.0, 12.0, 13.0]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda hub: hub.cut(COMMIT, after=5),
        *(
            lambda hub, status=status: hub.spoil(COMMIT, lambda body: b"{}", status=status)
            for status in (500, 403, 404)
        ),
        *(lambda hub, body=body: hub.spoil(COMMIT, lambda _: body) for body in (b"<html>", b"[]")),
    ],
)
@pytest.mark.usefixtures("once")
def test_a_commit_that_landed_is_not_called_a_failure(spoil: Callable[..., Any], hub: HubServer, export: Path) -> None:
    """Whatever is said of it, and though there is no further attempt."""
    hub.add_commit(hub.create(REPO), {"samples.png": b"old", "LICENSE": b"MIT"})
    spoil(hub)
    (export / "samples.png").unlink()
    assert push_export(export, REPO).endswith(f"/commit/{hub.repo(REPO).head().oid}")
    assert len(hub.repo(REPO).commits) == 3 and "samples.png" not in hub.repo(REPO).files()


@pytest.mark.usefixtures("once")
def test_a_commit_that_did_not_land_is_not_taken_for_an_older_one(hub: HubServer, export: Path) -> None:
    push_export(export, REPO)
    (export / "metrics.json").write_text(json.dumps({"step": 9, "epoch": 3}))
    hub.drop(COMMIT)
    with pytest.raises(PushError, match="cannot be reached"):
        push_export(export, REPO)
    assert len(hub.repo(REPO).commits) == 2
    hub.cut(COMMIT, after=5)
    hub.drop("POST .*/paths-info/")  # now it cannot be seen whether it landed
    with pytest.raises(PushError, match=r"cannot be reached .* does not say whether the commit has landed"):
        push_export(export, REPO)


@pytest.mark.parametrize("route", ["GET /api/whoami", "GET /api/models/", "POST .*/preupload/", "POST .*/batch"])
@pytest.mark.parametrize("body", [b"<html>", b"[]", b"null", b"{}"])
@pytest.mark.usefixtures("once")
def test_answers_without_sense_are_named(route: str, body: bytes, hub: HubServer, export: Path) -> None:
    hub.create(REPO)
    hub.spoil(route, lambda _: body, times=99)
    with pytest.raises(PushError, match="the Hub"):
        push_export(export, REPO)
    assert len(hub.repo(REPO).commits) == 1


@pytest.mark.parametrize("content", [{"dataset": 5}, {"options": ["a"], "dataset": {"id": 3}}, {"versions": 1.5}])
def test_files_of_an_export_that_say_something_else_are_named(content: dict, hub: HubServer, export: Path) -> None:
    (export / "training_config.json").write_text(json.dumps({"dataset": {"id": "a"}} | content))
    with pytest.raises(UserError, match="no card can be made of .*export the model again"):
        push_export(export, REPO)


def test_a_commit_of_somebody_else_meanwhile_is_kept(
    hub: HubServer, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.create(REPO)
    make_card = push.make_card

    def make_card_while_somebody_commits(*arguments: Any, **options: Any) -> str:
        monkeypatch.setattr(push, "make_card", make_card)
        hub.add_commit(hub.repo(REPO), {"README.md": f"{MARKER}\nTheirs.\n"})
        return make_card(*arguments, **options)

    monkeypatch.setattr(push, "make_card", make_card_while_somebody_commits)
    push_export(export, REPO)
    assert b"\nTheirs.\n" in hub.repo(REPO).read("README.md")


def test_it_gives_up_in_the_end_and_nothing_is_there(hub: HubServer, export: Path) -> None:
    hub.fail(COMMIT, status=503, times=99)
    with pytest.raises(PushError, match=r"failed 4 times, at last because the Hub answered 503 .*later") as raised:
        push_export(export, REPO)
    assert raised.value.temporary
    assert hub.repo(REPO).files() == {".gitattributes"}
    assert sum("/commit/" in request for request in hub.requests) == 4
    hub.faults.clear()
    hub.drop("", times=99)
    with pytest.raises(PushError, match="the Hub cannot be reached") as raised:
        push_export(export, REPO)
    assert raised.value.temporary


def give_token(scopes: list[dict[str, Any]]) -> Callable[..., None]:
    def arrange(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
        hub.roles["hf_fine"] = {"role": "fineGrained", "fineGrained": {"scoped": scopes}}
        monkeypatch.setenv("HF_TOKEN", "hf_fine")

    return arrange


OTHERS = give_token([{"entity": {"type": "model", "name": "tester/other"}, "permissions": ["repo.write"]}])
OWN = give_token([{"entity": {"type": "user", "name": "tester"}, "permissions": ["repo.content.read", "repo.write"]}])


@pytest.mark.parametrize(
    ("arrange", "repo_id", "words"),
    [
        (lambda hub, patch: patch.setenv("HF_TOKEN", ""), REPO, r"needs a Hub token.*hf auth login.*HF_TOKEN"),
        (lambda hub, patch: patch.setenv("HF_TOKEN", "hf_nobodys"), REPO, r"does not accept the token.*hf auth login"),
        (
            lambda hub, patch: patch.setenv("HF_TOKEN", hub.read_token),
            REPO,
            r"may only read, not write.*settings/token",
        ),
        (OTHERS, REPO, r"may only read, not write to tester/streets"),
        (
            lambda hub, patch: patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True),
            *(REPO, r"HF_HUB_OFFLINE is set: unset it"),
        ),
        (lambda hub, patch: None, "tester/my model", r"'tester/my model' is no repository id"),
        (lambda hub, patch: None, "a/b/c", r"'a/b/c' is no repository id.*give user/name"),
        (lambda hub, patch: None, "stranger/streets", r"the token is tester's.*push to tester/streets"),
        *(
            (lambda hub, patch, text=text: hub.create(REPO, {"config.json": text}, private=True), REPO, words)
            for text, words in (
                ('{"architectures": ["BertModel"]}', r"holds another kind of model, .* overwritten: push to another"),
                ("width: 3", r"holds another kind of model"),
            )
        ),
        (lambda hub, patch: hub.create(REPO), REPO, r"exists and is public.*make it private in its settings"),
    ],
)
def test_who_may_not_push_is_told_why_and_nothing_is_made(
    arrange: Callable[..., Any],
    repo_id: str,
    words: str,
    hub: HubServer,
    export: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arrange(hub, monkeypatch)
    before = {key: len(repo.commits) for key, repo in hub.repos.items()}
    with pytest.raises(PushError, match=words):
        push_export(export, repo_id, private=True)
    assert {key: len(repo.commits) for key, repo in hub.repos.items()} == before


def test_a_fine_grained_token_with_the_right_may(hub: HubServer, export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    OWN(hub, monkeypatch)
    assert push_export(export, REPO)


def test_the_command_pushes_a_run_its_best_or_an_export(
    hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    make_export(run / "model_best", seed=1)
    make_export(run / "model", seed=0)
    same = "hold the same weights: the best epoch is the last one"
    for arguments, step in (([str(run)], 6), ([str(run), "--best"], 7), ([str(run / "model")], 6)):
        assert main(["push", *arguments, REPO, "--private", "--license", "mit"]) == 0
        said = capsys.readouterr().out
        assert f"{hub.url}/{REPO}/commit/{hub.repo(REPO).head().oid}" in said and same not in said
        assert json.loads(hub.repo(REPO).read("metrics.json"))["step"] == step
    assert hub.repo(REPO).private and len(hub.repo(REPO).commits) == 4
    assert b"\nlicense: mit\n" in hub.repo(REPO).read("README.md")
    shutil.copy(run / "model" / "model.safetensors", run / "model_best")
    assert main(["push", str(run), REPO, "--best"]) == 0
    assert same in capsys.readouterr().out


def test_what_is_no_export_is_refused_before_anything_is_asked(hub: HubServer, tmp_path: Path, export: Path) -> None:
    (tmp_path / "id_rsa").write_text("secret")
    (export / "samples.png").unlink()
    (export / "samples.png").symlink_to(tmp_path / "id_rsa")
    with pytest.raises(UserError, match=r"links to files that lie elsewhere, .*: samples.png\."):
        push_export(export, REPO)
    (tmp_path / "empty").mkdir()
    (export / "model.safetensors").unlink()
    for folder, best, words in (
        (tmp_path / "absent", False, "absent is no folder"),
        (tmp_path / "empty", False, "empty/model holds a config.json"),
        (export.parent, True, "model_best does not hold a config.json"),
        (export.parent, False, "no whole export: model.safetensors missing"),
    ):
        with pytest.raises(UserError, match=words):
            find_export(folder, best=best)
    with pytest.raises(UserError, match="no whole export"):
        push_export(export, REPO)
    assert not hub.requests
