"""Pushing an export: what is on the Hub afterwards, and what is said when it does not work."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hub_server import HubServer, Operation
from run_exports import FILES, make_export

from pix2pix_hub.cli import main
from pix2pix_hub.hub import push
from pix2pix_hub.hub.card import MARKER
from pix2pix_hub.hub.push import PushError, find_export, push_export
from pix2pix_hub.models import PatchGANDiscriminator, UNetGenerator
from pix2pix_hub.util import UserError

REPO = "tester/streets"


@pytest.fixture
def export(tmp_path: Path) -> Path:
    return make_export(tmp_path / "run" / "model")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(push, "WAITS", (0.0, 0.0, 0.0))


def test_a_push_is_one_commit_with_exactly_the_files_of_the_export(hub: HubServer, export: Path) -> None:
    (export / "notes.txt").write_text("mine")
    (export / "optimizer.pt").write_bytes(b"\0")
    before = {path: path.read_bytes() for path in export.rglob("*") if path.is_file()}
    url = push_export(export, REPO)
    repo = hub.repo(REPO)
    assert len(repo.commits) == 2 and not repo.private
    assert sum("whoami" in request for request in hub.requests) == 1
    assert url == f"{hub.url}/{REPO}/commit/{repo.head().oid}"
    assert repo.head().title == "pix2pix_hub model: epoch 2, step 6"
    assert set(repo.head().operations) == {Operation("add", path) for path in FILES}
    for path in FILES - {"README.md"}:
        assert repo.read(path) == (export / path).read_bytes()
    assert {path: path.read_bytes() for path in export.rglob("*") if path.is_file()} == before


def test_both_networks_load_from_the_one_repository(hub: HubServer, export: Path) -> None:
    push_export(export, REPO, private=True)
    for network in (UNetGenerator, PatchGANDiscriminator):
        published, local = (network.from_pretrained(place).state_dict() for place in (REPO, export))
        assert published.keys() == local.keys()
        assert all(torch.equal(published[name], local[name]) for name in local)


def test_a_second_push_replaces_deletes_what_is_stale_and_leaves_what_people_added(
    hub: HubServer, export: Path, tmp_path: Path
) -> None:
    push_export(export, REPO)
    hub.add_commit(hub.repo(REPO), {"LICENSE": "MIT", "discriminator/about.txt": "text", "old.png": b"\0"})
    newer = make_export(tmp_path / "newer" / "model", seed=1)
    shutil.rmtree(newer / "discriminator")
    (newer / "samples.png").unlink()
    push_export(newer, REPO, message="no judge")
    repo = hub.repo(REPO)
    assert repo.head().title == "no judge"
    assert {path for kind, path in repo.head().operations if kind == "delete"} == {
        "discriminator/config.json",
        "discriminator/model.safetensors",
        "samples.png",
    }
    kept = {".gitattributes", "LICENSE", "discriminator/about.txt", "old.png"}
    assert repo.files() == kept | (
        FILES - {"samples.png", "discriminator/config.json", "discriminator/model.safetensors"}
    )
    changed = {path for kind, path in repo.head().operations if kind == "add"}
    assert changed == {"README.md", "metrics.json", "model.safetensors"}  # the others are the same as before


def test_a_branch_is_made_and_the_main_one_left_alone(hub: HubServer, export: Path) -> None:
    push_export(export, REPO, revision="dev")
    assert hub.repo(REPO).files("dev") == FILES | {".gitattributes"}
    assert hub.repo(REPO).files() == {".gitattributes"}
    assert UNetGenerator.from_pretrained(REPO, revision="dev")


@pytest.mark.parametrize("fault", ["5xx on the commit", "5xx on the account", "answer of the commit lost"])
def test_what_fails_for_the_moment_is_tried_again(fault: str, hub: HubServer, export: Path) -> None:
    if fault == "5xx on the commit":
        hub.fail("POST .*/commit/", status=503, times=2)
    elif fault == "5xx on the account":
        hub.fail("GET /api/whoami", status=502, times=3)
    else:
        hub.cut("POST .*/commit/", after=5)
    push_export(export, REPO)
    assert [commit.title for commit in hub.repo(REPO).commits[1:]] == ["pix2pix_hub model: epoch 2, step 6"]
    assert hub.repo(REPO).files() == FILES | {".gitattributes"}


@pytest.mark.parametrize("answer", ["cut", "500", "403", "404", "no JSON", "other JSON"])
def test_a_commit_that_landed_is_not_called_a_failure(
    answer: str, hub: HubServer, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is said of it, and though there is no further attempt."""
    monkeypatch.setattr(push, "WAITS", ())
    hub.add_commit(hub.create(REPO), {"samples.png": b"old", "LICENSE": b"MIT"})
    commit = "POST .*/commit/"
    if answer == "cut":
        hub.cut(commit, after=5)
    elif answer.isdigit():
        hub.spoil(commit, lambda body: b"{}", status=int(answer))
    else:
        hub.spoil(commit, lambda body: b"<html>" if answer == "no JSON" else b"[]")
    (export / "samples.png").unlink()
    assert push_export(export, REPO).endswith(f"/commit/{hub.repo(REPO).head().oid}")
    assert len(hub.repo(REPO).commits) == 3 and "samples.png" not in hub.repo(REPO).files()


def test_where_it_cannot_be_seen_whether_a_commit_landed_that_is_said(
    hub: HubServer, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "WAITS", ())
    hub.create(REPO)
    hub.cut("POST .*/commit/", after=5)
    hub.drop("POST .*/paths-info/")
    with pytest.raises(PushError, match=r"cannot be reached .* does not say whether the commit has landed"):
        push_export(export, REPO)


def test_a_commit_that_did_not_land_is_not_taken_for_an_older_one(
    hub: HubServer, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "WAITS", ())
    push_export(export, REPO)
    (export / "metrics.json").write_text(json.dumps({"step": 9, "epoch": 3}))
    hub.drop("POST .*/commit/")
    with pytest.raises(PushError, match="cannot be reached"):
        push_export(export, REPO)
    assert len(hub.repo(REPO).commits) == 2


@pytest.mark.parametrize("route", ["GET /api/whoami", "GET /api/models/", "POST .*/preupload/", "POST .*/batch"])
@pytest.mark.parametrize("body", [b"<html>", b"[]", b"null", b"{}"])
def test_answers_without_sense_are_named(
    route: str, body: bytes, hub: HubServer, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "WAITS", ())
    hub.create(REPO)
    hub.spoil(route, lambda _: body, times=99)
    with pytest.raises(PushError, match="the Hub"):
        push_export(export, REPO)
    assert len(hub.repo(REPO).commits) == 1


def test_what_links_lead_to_is_not_published(hub: HubServer, export: Path, tmp_path: Path) -> None:
    (tmp_path / "id_rsa").write_text("secret")
    (export / "samples.png").unlink()
    (export / "samples.png").symlink_to(tmp_path / "id_rsa")
    with pytest.raises(UserError, match=r"links to files that lie elsewhere, .*: samples.png\."):
        push_export(export, REPO)
    assert not hub.requests


@pytest.mark.parametrize("content", [{"dataset": 5}, {"options": ["a"], "dataset": {"id": 3}}, {"versions": 1.5}])
def test_files_of_an_export_that_say_something_else_are_named(content: dict, hub: HubServer, export: Path) -> None:
    (export / "training_config.json").write_text(json.dumps({"dataset": {"id": "a"}} | content))
    with pytest.raises(UserError, match="no card can be made of .*export the model again"):
        push_export(export, REPO)


def test_trying_again_does_not_upload_the_weights_again(hub: HubServer, export: Path) -> None:
    hub.fail("POST .*/commit/", status=500, times=3)
    push_export(export, REPO)
    uploads = [request for request in hub.requests if request.startswith("PUT /lfs/")]
    assert len(uploads) == len(set(uploads)) == 3


def test_a_commit_of_somebody_else_meanwhile_is_kept(
    hub: HubServer, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.create(REPO)
    make_card = push.make_card

    def make_card_while_somebody_commits(*arguments: object, **options: object) -> str:
        monkeypatch.setattr(push, "make_card", make_card)
        hub.add_commit(hub.repo(REPO), {"README.md": f"{MARKER}\nTheirs.\n"})
        return make_card(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(push, "make_card", make_card_while_somebody_commits)
    push_export(export, REPO)
    assert b"\nTheirs.\n" in hub.repo(REPO).read("README.md")


def test_it_gives_up_in_the_end_and_nothing_is_there(hub: HubServer, export: Path) -> None:
    hub.fail("POST .*/commit/", status=503, times=99)
    with pytest.raises(PushError, match=r"failed 4 times, at last because the Hub answered 503 .*later") as raised:
        push_export(export, REPO)
    assert raised.value.temporary
    assert hub.repo(REPO).files() == {".gitattributes"}
    assert sum("/commit/" in request for request in hub.requests) == 4


def test_a_hub_out_of_reach_is_named(hub: HubServer, export: Path) -> None:
    hub.close()
    with pytest.raises(PushError, match="the Hub cannot be reached") as raised:
        push_export(export, REPO)
    assert raised.value.temporary


def no_token(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "")


def read_token(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", hub.read_token)


def wrong_token(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_nobodys")


def fine_grained(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    scope = {"entity": {"type": "model", "name": "tester/other"}, "permissions": ["repo.write"]}
    hub.roles["hf_fine"] = {"role": "fineGrained", "fineGrained": {"scoped": [scope]}}
    monkeypatch.setenv("HF_TOKEN", "hf_fine")


def offline(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def other_model(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.create(REPO, {"config.json": json.dumps({"architectures": ["BertModel"]})}, private=True)


def no_json(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.create(REPO, {"config.json": "width: 3"}, private=True)


def public(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.create(REPO)


def nothing(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    pass


@pytest.mark.parametrize(
    ("arrange", "repo_id", "words"),
    [
        (no_token, REPO, r"needs a Hub token.*hf auth login.*HF_TOKEN"),
        (wrong_token, REPO, r"does not accept the token.*hf auth login"),
        (read_token, REPO, r"may only read, not write to tester/streets.*settings/tokens"),
        (fine_grained, REPO, r"may only read, not write to tester/streets"),
        (offline, REPO, r"HF_HUB_OFFLINE is set: unset it"),
        (nothing, "tester/my model", r"'tester/my model' is no repository id"),
        (nothing, "a/b/c", r"'a/b/c' is no repository id.*give user/name"),
        (nothing, "stranger/streets", r"the token is tester's.*push to tester/streets"),
        (other_model, REPO, r"holds another kind of model, which would be overwritten: push to another name"),
        (no_json, REPO, r"holds another kind of model"),
        (public, REPO, r"exists and is public.*make it private in its settings"),
    ],
)
def test_who_may_not_push_is_told_why_and_nothing_is_made(
    arrange: Callable[[HubServer, pytest.MonkeyPatch], None],
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
    scope = {"entity": {"type": "user", "name": "tester"}, "permissions": ["repo.content.read", "repo.write"]}
    hub.roles["hf_fine"] = {"role": "fineGrained", "fineGrained": {"scoped": [scope]}}
    monkeypatch.setenv("HF_TOKEN", "hf_fine")
    assert push_export(export, REPO)


def test_a_name_alone_is_the_users_own(hub: HubServer, export: Path) -> None:
    assert f"/{REPO}/" in push_export(export, "streets")
    assert hub.repo(REPO).files() > FILES


def test_the_command_pushes_a_run_its_best_or_an_export(
    hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    make_export(run / "model_best", seed=1)
    make_export(run / "model", seed=0)
    for arguments, step in (([str(run)], 6), ([str(run), "--best"], 7), ([str(run / "model")], 6)):
        assert main(["push", *arguments, REPO, "--private", "--license", "mit"]) == 0
        assert f"{hub.url}/{REPO}/commit/{hub.repo(REPO).head().oid}" in capsys.readouterr().out
        assert json.loads(hub.repo(REPO).read("metrics.json"))["step"] == step
    assert hub.repo(REPO).private and len(hub.repo(REPO).commits) == 4
    assert b"\nlicense: mit\n" in hub.repo(REPO).read("README.md")


@pytest.mark.parametrize(("seed", "said"), [(0, True), (1, False)])
def test_that_the_best_epoch_is_the_last_is_said(
    seed: int, said: bool, hub: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_export(tmp_path / "run" / "model_best", seed=seed)
    make_export(tmp_path / "run" / "model", seed=0)
    assert main(["push", str(tmp_path / "run"), REPO, "--best"]) == 0
    assert ("hold the same weights: the best epoch is the last one" in capsys.readouterr().out) == said


def test_what_is_no_export_is_refused_before_anything_is_asked(hub: HubServer, tmp_path: Path, export: Path) -> None:
    (tmp_path / "empty").mkdir()
    (export / "model.safetensors").unlink()
    for folder, best, words in (
        (tmp_path / "absent", False, "absent is no folder"),
        (tmp_path / "empty", False, "empty/model holds a config.json"),
        (export.parent, True, "model_best does not hold a config.json"),
        (export.parent, False, "no whole export: model.safetensors missing"),
        (export, False, "no whole export: model.safetensors missing"),
    ):
        with pytest.raises(UserError, match=words):
            find_export(folder, best=best)
    with pytest.raises(UserError, match="no whole export"):
        push_export(export, REPO)
    assert not hub.requests
