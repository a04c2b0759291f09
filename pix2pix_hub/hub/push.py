"""From an export to the Hub: one commit with exactly its files.

pix2pix-hub push runs/facades_default_001 user/pix2pix-facades
"""

from __future__ import annotations

import filecmp
import hashlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from pix2pix_hub.hub.account import open_repo
from pix2pix_hub.hub.card import CARD_NAME, make_card, read_card
from pix2pix_hub.hub.failures import PushError, as_push_error
from pix2pix_hub.util import UserError, is_own_file, read_object

logger = logging.getLogger(__name__)

WEIGHTS_NAME = "model.safetensors"
GENERATOR_FILES = ("config.json", WEIGHTS_NAME, "preprocessor_config.json")
OPTIONAL_FILES = (
    "discriminator/config.json",
    "discriminator/model.safetensors",
    "training_config.json",
    "metrics.json",
    "samples.png",
)
EXPORT_FILES = (CARD_NAME, *GENERATOR_FILES, *OPTIONAL_FILES)
WAITS = (2.0, 5.0, 15.0, 45.0, 120.0)  # seconds before each new attempt


def find_export(run_or_export: Path, *, best: bool = False) -> Path:
    """The export itself, or that of a run: `model/`, `model_best/` with `best`.

    Raises:
        UserError: there is none.
    """
    places = [run_or_export / "model_best"] if best else [run_or_export, run_or_export / "model"]
    for folder in places:
        if os.path.isfile(folder / "config.json"):
            check_export(folder)
            return folder
    if not os.path.isdir(run_or_export):
        raise UserError(f"{run_or_export} is no folder: name a run (runs/…) or its model/.")
    looked = "neither {} nor {} holds".format(*places) if len(places) == 2 else f"{places[0]} does not hold"
    raise UserError(f"{looked} a config.json: name a run that has trained an epoch, or an export.")


def holds_same_weights(export: Path, other: Path) -> bool:
    """Whether two exports are of the same generator, byte by byte; False where one is none."""
    first, second = export / WEIGHTS_NAME, other / WEIGHTS_NAME
    return first.is_file() and second.is_file() and filecmp.cmp(first, second, shallow=False)


def check_export(folder: Path) -> None:
    """Raise `UserError` unless everything that a generator needs is there, and nothing that lies elsewhere."""
    missing = [name for name in GENERATOR_FILES if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder} is no whole export: {', '.join(missing)} missing. Name a run's model/.")
    linked = [name for name in EXPORT_FILES if not is_own_file(folder / name, folder)]
    if linked:
        raise UserError(
            f"{folder} has links to files that lie elsewhere, which would be published: {', '.join(linked)}. Put the "
            "files themselves in their place if they may be."
        )


def push_export(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
    message: str | None = None,
    license: str | None = None,
) -> str:
    """Commit the export's files, and nothing else, to a model repository, which is made where it does not exist.

    The card is made anew from the export; what a person wrote between its keep markers, here or on the Hub, stays.
    Files of an earlier push that this export lacks are deleted by the same commit; files that are not an export's
    (LICENSE, .gitattributes, pictures, …) are left alone. What the Hub or the network fails at for the moment is tried
    again, after `WAITS`.

    Args:
        folder: an export, as a run's `model/`.
        repo_id: `user/name`, or `name` of the user whose token it is.
        private: make the repository private.
        revision: branch, made where it does not exist; None: the main one.
        token: None: the one of `hf auth login` or HF_TOKEN.
        message: title of the commit; None: epoch and step of the run.
        license: of the weights, as the Hub spells it; None: what the card says already, else apache-2.0.

    Returns:
        Address of the commit.

    Raises:
        PushError: no right to write there, or it failed to the end; the folder is as it was.
        UserError: the folder is no whole export.
    """
    check_export(Path(folder))
    repo_id = retrying(lambda: open_repo(repo_id, private=private, revision=revision, token=token), repo_id)
    return retrying(
        lambda: commit_export(Path(folder), repo_id, revision=revision, token=token, message=message, license=license),
        repo_id,
    )


def retrying(attempt: Callable[[], str], repo_id: str, give_up: Callable[[float], bool] | None = None) -> str:
    """What `attempt` returns, at the latest after `WAITS`.

    Args:
        attempt: raises `PushError`, temporary or not.
        repo_id: for what is said about it.
        give_up: waits so many seconds, and says whether to stop trying; None: never.
    """
    for wait in WAITS:
        try:
            return attempt()
        except PushError as error:
            if not error.temporary:
                raise
            logger.warning("Pushing to %s: %s; trying again in %g s.", repo_id, error, wait)
            if (give_up or _sleep)(wait):
                raise
    try:
        return attempt()
    except PushError as error:
        if not error.temporary:
            raise
        text = f"pushing to {repo_id} failed {len(WAITS) + 1} times, at last because {error}. Push again later."
        raise PushError(text, temporary=True) from error


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def commit_export(
    folder: Path,
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    message: str | None = None,
    license: str | None = None,
) -> str:
    """One attempt at what `push_export` does, to a repository that is open; the commit's address.

    Raises:
        PushError: it failed; nothing was committed, or the text says that this is not known.
    """
    api = HfApi(token=token)
    try:
        head = api.model_info(repo_id, revision=revision)
        present = {file.rfilename for file in head.siblings or []}
        card_file = api.hf_hub_download(repo_id, CARD_NAME, revision=head.sha) if CARD_NAME in present else None
        published = read_card(Path(card_file)) if card_file else None
        card = make_card(folder, repo_id, published=published, license=license)
        additions = _additions(folder, card)
        for addition in additions:
            if addition.path_in_repo.endswith((".safetensors", ".png")):
                # one at a time, in this thread: the client's pool of threads would keep the process from ending
                api.preupload_lfs_files(repo_id, [addition], revision=revision)
        stale = (present & set(EXPORT_FILES)) - {addition.path_in_repo for addition in additions}
        try:
            commit = api.create_commit(
                repo_id,
                [*additions, *(CommitOperationDelete(name) for name in sorted(stale))],
                commit_message=message or commit_title(folder),
                revision=revision,
                parent_commit=head.sha,  # after somebody else's commit: look again
            )
        except Exception as error:  # the answer may have been lost on its way, or spoilt by a proxy
            try:
                landed = _landed(api, repo_id, revision, additions)
            except Exception:
                known = as_push_error(error, repo_id)
                words = f"{known}, and does not say whether the commit has landed"
                raise PushError(words, temporary=known.temporary) from error
            if landed is None:
                raise
            return landed
        return str(commit.commit_url)
    except Exception as error:
        raise as_push_error(error, repo_id) from error


def _landed(api: HfApi, repo_id: str, revision: str | None, additions: list[CommitOperationAdd]) -> str | None:
    """Address of the branch's last commit, if of an export's files it holds exactly those that are here."""
    sha = api.model_info(repo_id, revision=revision).sha
    there = api.get_paths_info(repo_id, list(EXPORT_FILES), revision=sha)
    ours = {addition.path_in_repo: addition for addition in additions}
    same = {file.path for file in there} == ours.keys() and all(_is_same(ours[file.path], file) for file in there)
    return f"{api.endpoint}/{repo_id}/commit/{sha}" if same else None


def _is_same(ours: CommitOperationAdd, there: Any) -> bool:
    if there.lfs:
        return bool(there.lfs.sha256 == ours.upload_info.sha256.hex())
    with ours.as_file() as file:
        content = file.read()
    return bool(there.blob_id == hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest())


def commit_title(folder: Path) -> str:
    """What a commit of this export is called: where its run stands."""
    metrics = read_object(folder / "metrics.json")
    where = f": epoch {metrics['epoch']}, step {metrics['step']}" if {"epoch", "step"} <= metrics.keys() else ""
    return f"pix2pix_hub model{where}"


def _additions(folder: Path, card: str) -> list[CommitOperationAdd]:
    files = [name for name in (*GENERATOR_FILES, *OPTIONAL_FILES) if (folder / name).is_file()]
    return [CommitOperationAdd(CARD_NAME, card.encode()), *(CommitOperationAdd(name, folder / name) for name in files)]
