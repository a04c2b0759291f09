"""From a Hub repository id, or a local folder, to a folder that holds the files asked for."""

from __future__ import annotations

import difflib
import errno
import logging
import os
import re
import reprlib
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath

from huggingface_hub import constants, get_token, snapshot_download
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from pix2pix_hub.export import local_path
from pix2pix_hub.util import UserError

logger = logging.getLogger(__name__)

MAX_NAME_BYTES = 250  # of a revision, and of a file, as most file systems have it
NAME_AT_REVISION = re.compile(r"([\w.-]+/[\w.-]+)@(.+)")
ANSWERS = (  # which the Hub gives: nothing broke off
    DisabledRepoError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
LOG_IN = "type `hf auth login` or set HF_TOKEN"


def fetch_files(
    repo_or_folder: str | Path,
    files: Sequence[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Path:
    """The folder itself where it exists; else that of the cache, after a download of those of `files` there are.

    Nothing else of the repository is ever fetched. With `HF_HUB_OFFLINE=1`, while the Hub cannot be reached, or where
    its answers break off, what the cache has is used if it is whole.

    Args:
        repo_or_folder: a local folder, or a repository id (`user/name`, `user/name@revision`).
        files: exact names inside it, with `/` between folders; what it lacks is left out.
        revision, token, cache_dir, force_download, local_files_only: as in `huggingface_hub`.

    Raises:
        UserError: no such folder, repository or revision; two revisions; no access; no network and nothing in the
            cache; a download that broke off; a file name that leads out of the folder.
    """
    for file in files:
        _check_file_name(file)
    folder = local_path(repo_or_folder)
    if os.path.isdir(folder):
        return folder
    if os.path.exists(folder):
        raise UserError(f"{folder} is a file: name the folder it lies in.")
    repo_id, revision = split_revision(str(repo_or_folder), revision)
    if revision is not None and not _is_plain(revision):
        raise UserError(f"{reprlib.repr(revision)} can be no revision: name a branch, tag or commit, or none for main.")
    fetch = partial(
        snapshot_download, repo_id, allow_patterns=list(files), revision=revision, token=token, cache_dir=cache_dir
    )
    try:
        return Path(fetch(force_download=force_download, local_files_only=local_files_only))
    except Exception as error:  # HTTP clients, file systems and xet raise almost anything
        reason = _explain(error, repo_id, revision, token)
        if not force_download and not isinstance(error, ANSWERS):
            with suppress(Exception):
                cached = Path(fetch(local_files_only=True))
                logger.warning("%s What the cache has is whole, and is used: %s", reason, cached)
                return cached
        raise UserError(f"{reason}{_close_folder(folder)}") from error


def split_revision(name: str, revision: str | None = None) -> tuple[str, str | None]:
    """`user/name@revision` → the repository's id and the revision; other names as they are, with `revision`.

    Raises:
        UserError: both say a revision, and not the same.
    """
    if not (named := NAME_AT_REVISION.fullmatch(name)):
        return name, revision
    if revision not in (None, named[2]):
        raise UserError(f"{name} names revision {named[2]}, and {revision} came beside it: give one of them.")
    return named[1], named[2]


def commit_of(folder: Path) -> str | None:
    """The commit that a folder of the Hub's cache holds; None for any other folder."""
    return folder.name if folder.parent.name == "snapshots" else None


def _check_file_name(file: str) -> None:
    """Plain names and folders: no way out, no pattern."""
    path = PurePosixPath(file)
    plain = all(map(_is_plain, path.parts)) and not set(file) & set("\\:*?[]")
    if path.is_absolute() or str(path) != file or ".." in path.parts or not plain:
        raise UserError(
            f"{reprlib.repr(file)} is no file of a model: expected names with / between, without .. and patterns."
        )


def _is_plain(name: str) -> bool:
    return name.isprintable() and len(name.encode()) <= MAX_NAME_BYTES


def _explain(error: BaseException | None, repo_id: str, revision: str | None, token: str | bool | None) -> str:
    """What happened, what was expected, what to type next."""
    hub, where = constants.ENDPOINT, f"{constants.ENDPOINT}/{repo_id}"
    sent = "A token was sent: if it is private, see that the token may read it."
    if token is False or not (token or get_token()):
        sent = f"No token was sent: if it is private, {LOG_IN}."
    match error:
        case HFValidationError():
            return f"{reprlib.repr(repo_id)} is no local folder, nor can it be a repository on the Hub (user/name)."
        case LocalTokenNotFoundError():
            return f"Fetching {repo_id} with your token needs one on this machine: {LOG_IN}."
        case GatedRepoError():
            return f"{repo_id} is gated: ask for access at {where}, then {LOG_IN}."
        case RepositoryNotFoundError():
            return f"{repo_id} is no local folder, and no repository that you may read on {hub}: check the name. {sent}"
        case RevisionNotFoundError():
            return f"{repo_id} has no revision {revision!r}: name a branch, tag or commit of {where}, or none for main."
        case DisabledRepoError():
            return f"{repo_id} has been disabled on {hub}: use another model."
        case LocalEntryNotFoundError(__cause__=HfHubHTTPError() as answer):
            return _explain(answer, repo_id, revision, token)
        case LocalEntryNotFoundError(__cause__=None | OfflineModeIsEnabled()):
            asked = "local_files_only" if error.__cause__ is None else "HF_HUB_OFFLINE"
            return (
                f"{repo_id} is not a local folder, nor complete in the cache, and {asked} forbids asking the Hub: "
                f"fetch it once while online (`hf download {repo_id}`)."
            )
        case LocalEntryNotFoundError(__cause__=cause):
            return (
                f"{repo_id} is not a local folder, nor complete in the cache, and {hub} could not be reached "
                f"({type(cause).__name__}: {cause}): check the network and the name, then try again."
            )
        case HfHubHTTPError(response=response):
            answered = f"{where} answered {response.status_code} {response.reason_phrase}"
            if response.status_code in (401, 403):
                return f"{answered}: you may not read it. {sent}"
            if response.status_code == 429:
                return f"{answered}: too many requests. Wait a few minutes; who is logged in may ask more ({LOG_IN})."
            if response.status_code >= 500:
                return f"{answered}: the Hub is in trouble. Try again later."
            return f"{answered}: expected a repository of a model."
        case OSError(errno=errno.ENOSPC):
            return f"The disk is full: {repo_id} could not be downloaded to {constants.HF_HUB_CACHE}. Make room there."
    return (
        f"The download of {repo_id} from {hub} broke off ({type(error).__name__}: {error}). Nothing half-finished is "
        "used: try again."
    )


def _close_folder(folder: Path) -> str:
    """Where the name looks like a path: the nearest one that exists."""
    if not os.path.isdir(folder.parent) or folder.parent == Path(".") or not _is_plain(folder.name):
        return ""
    try:
        names = [entry.name for entry in os.scandir(folder.parent) if entry.is_dir()]
    except OSError:  # a folder that is not for this user
        return ""
    close = difflib.get_close_matches(folder.name, names, n=1)
    if close:
        return f" Did you mean {folder.parent / close[0]}?"
    return f" (The folder {folder.parent} exists, but holds no {folder.name}.)"
