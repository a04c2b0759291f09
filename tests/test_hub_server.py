"""The test Hub: the unmodified client gets from it what it would get from the Hub."""

from __future__ import annotations

from pathlib import Path

import datasets
import huggingface_hub
import pytest
from hub_server import HubServer, Operation
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

REPO = "tester/maps"
FILES = {
    "README.md": b"---\nlicense: mit\n---\n# A\n",
    "model.safetensors": bytes(range(256)) * 40,
    "sub/model.safetensors": bytes(3000),
    "sub/empty.txt": b"",
}


def test_a_folder_uploaded_as_one_commit_comes_back_equal(hub: HubServer, tmp_path: Path) -> None:
    for name, content in FILES.items():
        (tmp_path / "export" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "export" / name).write_bytes(content)
    HfApi().create_repo(REPO)
    HfApi().upload_folder(repo_id=REPO, folder_path=tmp_path / "export")
    repo = hub.repo(REPO)
    assert len(repo.commits) == 2
    assert set(repo.head().operations) == {Operation("add", path) for path in FILES}
    assert {path for path, file in repo.head().tree.items() if file.lfs} == {name for name in FILES if "model" in name}
    snapshot = Path(huggingface_hub.snapshot_download(REPO))
    assert snapshot.is_relative_to(hub.home)
    assert {name: (snapshot / name).read_bytes() for name in FILES} == FILES
    asked = len(hub.requests)
    assert Path(huggingface_hub.snapshot_download(REPO, local_files_only=True)) == snapshot
    assert len(hub.requests) == asked


def test_adding_and_deleting_is_one_commit_and_unchanged_files_are_not_in_it(hub: HubServer) -> None:
    hub.create(REPO, {"a.txt": "a", "b.txt": "b", "c.txt": "c", "d.safetensors": "d"})
    added = [CommitOperationAdd(*file) for file in (("a.txt", b"a"), ("b.txt", b"new"), ("d.safetensors", b"d"))]
    HfApi().create_commit(REPO, [*added, CommitOperationDelete("c.txt")], commit_message="change")
    commit = hub.repo(REPO).head()
    assert commit.title == "change"
    assert set(commit.operations) == {Operation("add", "b.txt"), Operation("delete", "c.txt")}
    with pytest.raises(EntryNotFoundError):
        HfApi().create_commit(REPO, [CommitOperationDelete("c.txt")], commit_message="again")
    HfApi().create_branch(REPO, branch="dev")
    HfApi().upload_file(repo_id=REPO, path_in_repo="a.txt", path_or_fileobj=b"newer", revision="dev")
    for revision, text in (("main", "a"), ("dev", "newer"), (hub.repo(REPO).branches["dev"], "newer")):
        assert Path(huggingface_hub.hf_hub_download(REPO, "a.txt", revision=revision)).read_text() == text


def test_who_may_do_what(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.create(REPO, {"a.txt": "a"}, private=True)
    assert HfApi().model_info(REPO).private
    for error, call in (
        (RevisionNotFoundError, lambda: huggingface_hub.snapshot_download(REPO, revision="none")),
        (EntryNotFoundError, lambda: huggingface_hub.hf_hub_download(REPO, "none")),
        (RepositoryNotFoundError, lambda: huggingface_hub.snapshot_download("tester/none")),
        (HfHubHTTPError, lambda: HfApi().create_repo("someone/maps")),
        (HfHubHTTPError, lambda: HfApi().create_repo(REPO)),
    ):
        with pytest.raises(error):
            call()
    HfApi().create_repo(REPO, exist_ok=True)
    monkeypatch.setenv("HF_TOKEN", hub.read_token)
    with pytest.raises(HfHubHTTPError, match="403"):
        HfApi().upload_file(repo_id=REPO, path_in_repo="a.txt", path_or_fileobj=b"new")
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        HfApi().whoami()
    monkeypatch.setenv("HF_TOKEN", "")
    with pytest.raises(RepositoryNotFoundError):
        huggingface_hub.snapshot_download(REPO)


def test_faults_hit_the_next_requests_only(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused upload, and a download that is cut and resumed where it stopped."""
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    content = bytes(range(256)) * 4096
    hub.create(REPO, {"model.safetensors": content})
    hub.fail("POST .*/commit/", status=503)
    with pytest.raises(HfHubHTTPError, match="503"):
        HfApi().upload_file(repo_id=REPO, path_in_repo="a.txt", path_or_fileobj=b"a")
    HfApi().upload_file(repo_id=REPO, path_in_repo="a.txt", path_or_fileobj=b"a")
    assert hub.repo(REPO).read("a.txt") == b"a" and len(hub.repo(REPO).commits) == 3
    hub.cut("GET /storage/", after=300_000)
    assert Path(huggingface_hub.hf_hub_download(REPO, "model.safetensors")).read_bytes() == content
    assert sum("GET /storage/" in request for request in hub.requests) == 2


def test_cards_are_checked(hub: HubServer) -> None:
    hub.create(REPO)
    ModelCard("---\nlicense: mit\ntags: [a]\n---\n").validate()
    for wrong in ("license: my own", "tags: [1]", "pipeline_tag: [1]"):
        with pytest.raises(ValueError, match="must be"):
            ModelCard(f"---\n{wrong}\n---\n").validate()
    wrong_index = "---\nmodel-index:\n- name: a\n  results:\n  - metrics: []\n---\n"
    with pytest.raises(ValueError, match="task.type"):
        HfApi().upload_file(repo_id=REPO, path_in_repo="README.md", path_or_fileobj=wrong_index.encode())
    assert hub.repo(REPO).files() == {".gitattributes"}


def test_datasets_are_pushed_and_loaded(hub: HubServer) -> None:
    datasets.Dataset.from_dict({"number": [1, 2, 3]}).push_to_hub("tester/numbers", private=True)
    repo = hub.repo("tester/numbers", kind="datasets")
    assert repo.private and repo.files() == {".gitattributes", "README.md", "data/train-00000-of-00001.parquet"}
    for streaming in (False, True):
        rows = datasets.load_dataset("tester/numbers", split="train", streaming=streaming)
        assert [row["number"] for row in rows] == [1, 2, 3]
