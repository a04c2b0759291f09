"""The test Hub: the unmodified client gets from it what it would get from the Hub."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
from hub_server import HubServer, Operation
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard, RepoFile
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

REPO = "tester/maps"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Text, large files, an empty file and a subfolder."""
    (tmp_path / "export" / "sub").mkdir(parents=True)
    (tmp_path / "export" / "README.md").write_text("---\nlicense: mit\n---\n# A\n")
    (tmp_path / "export" / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "export" / "sub" / "model.safetensors").write_bytes(b"\0" * 3000)
    (tmp_path / "export" / "sub" / "empty.txt").write_bytes(b"")
    return tmp_path / "export"


FILES = {"README.md", "model.safetensors", "sub/model.safetensors", "sub/empty.txt"}


def test_a_folder_uploaded_as_one_commit_comes_back_equal(hub: HubServer, folder: Path) -> None:
    api = HfApi()
    api.create_repo(REPO)
    api.upload_folder(repo_id=REPO, folder_path=folder)
    repo = hub.repo(REPO)
    assert len(repo.commits) == 2
    assert set(repo.head().operations) == {Operation("add", path) for path in FILES}
    assert {path for path, file in repo.head().tree.items() if file.lfs} == {
        "model.safetensors",
        "sub/model.safetensors",
    }

    snapshot = Path(huggingface_hub.snapshot_download(REPO))
    assert snapshot.is_relative_to(hub.home)
    for path in FILES:
        assert (snapshot / path).read_bytes() == (folder / path).read_bytes()
    asked = len(hub.requests)
    assert Path(huggingface_hub.snapshot_download(REPO, local_files_only=True)) == snapshot
    assert len(hub.requests) == asked


def test_files_are_uploaded_in_parts_where_they_are_large(hub: HubServer) -> None:
    hub.part_bytes = 1000
    content = bytes(range(250)) * 9
    HfApi().create_repo(REPO)
    HfApi().upload_file(repo_id=REPO, path_in_repo="a.safetensors", path_or_fileobj=content)
    assert sum("/part/" in request for request in hub.requests) == 3
    assert hub.repo(REPO).read("a.safetensors") == content


def test_adding_and_deleting_is_one_commit_and_unchanged_files_are_not_in_it(hub: HubServer) -> None:
    hub.create(REPO, {"a.txt": "a", "b.txt": "b", "c.txt": "c", "d.safetensors": "d"})
    operations = [
        CommitOperationAdd("a.txt", b"a"),
        CommitOperationAdd("b.txt", b"new"),
        CommitOperationAdd("d.safetensors", b"d"),
        CommitOperationDelete("c.txt"),
    ]
    HfApi().create_commit(REPO, operations, commit_message="change")
    commit = hub.repo(REPO).head()
    assert commit.title == "change"
    assert set(commit.operations) == {Operation("add", "b.txt"), Operation("delete", "c.txt")}
    with pytest.raises(EntryNotFoundError):
        HfApi().create_commit(REPO, [CommitOperationDelete("c.txt")], commit_message="again")


def test_revisions_trees_and_refs(hub: HubServer) -> None:
    hub.create(REPO, {"a.txt": "old", "sub/b.txt": "b"})
    api = HfApi()
    api.create_tag(REPO, tag="v1")
    api.create_branch(REPO, branch="dev")
    api.upload_file(repo_id=REPO, path_in_repo="a.txt", path_or_fileobj=b"new", revision="dev")
    assert {ref.name: ref.target_commit for ref in api.list_repo_refs(REPO).branches} == hub.repo(REPO).branches
    for revision, text in (("main", "old"), ("v1", "old"), ("dev", "new"), (hub.repo(REPO).branches["dev"], "new")):
        assert Path(huggingface_hub.hf_hub_download(REPO, "a.txt", revision=revision)).read_text() == text
    assert [entry.path for entry in api.list_repo_tree(REPO)] == [".gitattributes", "a.txt", "sub"]
    assert [entry.path for entry in api.list_repo_tree(REPO, "sub") if isinstance(entry, RepoFile)] == ["sub/b.txt"]
    assert [entry.path for entry in api.get_paths_info(REPO, ["a.txt", "none"])] == ["a.txt"]
    assert [commit.title for commit in api.list_repo_commits(REPO, revision="dev")][-1] == "initial commit"
    assert api.file_exists(REPO, "sub/b.txt") and not api.file_exists(REPO, "sub")
    with pytest.raises(RevisionNotFoundError):
        huggingface_hub.snapshot_download(REPO, revision="none")
    with pytest.raises(EntryNotFoundError):
        huggingface_hub.hf_hub_download(REPO, "none")


def test_who_may_do_what(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.create(REPO, {"a.txt": "a"}, private=True)
    hub.create("tester/gated", {"a.txt": "a"}, gated=True)
    assert HfApi().whoami()["name"] == "tester"
    assert HfApi().model_info(REPO).private
    with pytest.raises(GatedRepoError):
        huggingface_hub.snapshot_download("tester/gated")
    with pytest.raises(RepositoryNotFoundError):
        huggingface_hub.snapshot_download("tester/none")
    with pytest.raises(HfHubHTTPError, match="403"):
        HfApi().create_repo("someone/maps")
    with pytest.raises(HfHubHTTPError, match="409"):
        HfApi().create_repo(REPO)
    HfApi().create_repo(REPO, exist_ok=True)
    monkeypatch.setenv("HF_TOKEN", hub.read_token)
    assert HfApi().whoami()["auth"]["accessToken"]["role"] == "read"
    with pytest.raises(HfHubHTTPError, match="403"):
        HfApi().upload_file(repo_id=REPO, path_in_repo="a.txt", path_or_fileobj=b"new")
    monkeypatch.setenv("HF_TOKEN", "wrong")
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        HfApi().whoami()
    monkeypatch.setenv("HF_TOKEN", "")
    with pytest.raises(RepositoryNotFoundError):
        huggingface_hub.snapshot_download(REPO)


def test_a_cut_download_is_resumed_where_it_stopped(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    content = bytes(range(256)) * 4096
    hub.create(REPO, {"model.safetensors": content})
    hub.cut("GET /storage/", after=300_000)
    assert Path(huggingface_hub.hf_hub_download(REPO, "model.safetensors")).read_bytes() == content
    assert sum("GET /storage/" in request for request in hub.requests) == 2


def test_injected_errors_hit_the_next_requests_only(hub: HubServer) -> None:
    hub.create(REPO)
    hub.fail("POST .*/commit/", status=503)
    with pytest.raises(HfHubHTTPError, match="503"):
        HfApi().upload_file(repo_id=REPO, path_in_repo="a.txt", path_or_fileobj=b"a")
    assert hub.repo(REPO).files() == {".gitattributes"}
    HfApi().upload_file(repo_id=REPO, path_in_repo="a.txt", path_or_fileobj=b"a")
    assert hub.repo(REPO).read("a.txt") == b"a"


def test_cards_are_checked(hub: HubServer) -> None:
    hub.create("tester/a")
    ModelCard("---\nlicense: mit\ntags: [a]\n---\n").validate()
    for wrong in ("license: my own", "tags: [1]", "pipeline_tag: [1]"):
        with pytest.raises(ValueError, match="must be"):
            ModelCard(f"---\n{wrong}\n---\n").validate()
    wrong_index = "---\nmodel-index:\n- name: a\n  results:\n  - metrics: []\n---\n"
    with pytest.raises(ValueError, match="task.type"):
        HfApi().upload_file(repo_id="tester/a", path_in_repo="README.md", path_or_fileobj=wrong_index.encode())
    assert hub.repo("tester/a").files() == {".gitattributes"}


def test_datasets_are_pushed_and_loaded(hub: HubServer) -> None:
    import datasets

    rows = datasets.Dataset.from_dict({"number": [1, 2, 3]})
    rows.push_to_hub("tester/numbers", private=True)
    repo = hub.repo("tester/numbers", kind="datasets")
    assert repo.private and repo.files() == {".gitattributes", "README.md", "data/train-00000-of-00001.parquet"}
    assert datasets.load_dataset("tester/numbers", split="train")["number"][:] == [1, 2, 3]
    streamed = datasets.load_dataset("tester/numbers", split="train", streaming=True)
    assert [row["number"] for row in streamed] == [1, 2, 3]
