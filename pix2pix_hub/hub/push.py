"""From an export to the Hub: one commit with exactly its files.

pix2pix-hub push runs/facades_default_001 user/pix2pix-facades
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from pix2pix_hub.export import BEST_MODEL, CARD_NAME, CONFIG_NAME, EXPORT_FILES, MODEL, Export, export_in
from pix2pix_hub.hub.card import make_card, read_card
from pix2pix_hub.util import UserError, read_object

logger = logging.getLogger(__name__)

WAITS = (2.0, 5.0, 15.0, 45.0, 120.0)  # seconds before each new attempt
LOGIN = "Run `hf auth login`, or set HF_TOKEN, with a token that may write (https://huggingface.co/settings/tokens)."
# timeout, conflict, somebody else's commit, too many requests: the Hub may say yes a little later; so may 5xx
TEMPORARY_STATUS = {408, 409, 412, 425, 429}
ANSWERED_NONSENSE = (AssertionError, AttributeError, LookupError, TypeError, ValueError)  # the client, without a check


Result = TypeVar("Result")


# --- the export ---


def find_export(run_or_export: Path, *, best: bool = False) -> Path:
    """The export itself, or that of a run: `model/`, `model_best/` with `best`.

    Raises:
        UserError: there is none, or not a whole one.
    """
    if (folder := export_in(run_or_export, best=best)) is not None:
        Export(folder).check_whole()
        return folder
    if not os.path.isdir(run_or_export):
        raise UserError(f"{run_or_export} is no folder: name a run (runs/…) or its model/.")
    place, best_place = run_or_export / MODEL, run_or_export / BEST_MODEL
    looked = f"{best_place} does not hold" if best else f"neither {run_or_export} nor {place} holds"
    raise UserError(f"{looked} a {CONFIG_NAME}: name a run that has trained an epoch, or an export.")


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

    The card is made anew from the export; what a person wrote below its marker, here or on the Hub, stays. Files of an
    earlier push that this export lacks are deleted by the same commit; files that are not an export's (LICENSE,
    .gitattributes, pictures, …) are left alone. What the Hub or the network fails at for the moment is tried again,
    after `WAITS`.

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
    export = Export(Path(folder))
    export.check_whole()
    repo_id = retrying(lambda: check_account(repo_id, token), repo_id)
    retrying(lambda: open_repo(repo_id, private=private, revision=revision, token=token), repo_id)
    return retrying(
        lambda: commit_export(export.folder, repo_id, revision=revision, token=token, message=message, license=license),
        repo_id,
    )


def push_in_background(folder: Path, repo_id: str, revision: str | None = None) -> Future[str]:
    """Commit the export as it is now, in a thread that ends with the process; a repository that is open.

    The export may be replaced meanwhile: a copy is pushed. A failure is logged in one line besides.
    """
    push: Future[str] = Future()

    def work() -> None:
        try:
            with copy:
                url = retrying(lambda: commit_export(Path(copy.name), repo_id, revision=revision), repo_id)
        except Exception as error:  # whatever it is, training goes on
            failed(error)
        else:
            logger.info("Pushed to %s", url)
            push.set_result(url)

    def failed(error: Exception) -> None:
        logger.warning("Not pushed to %s: %s Training goes on.", repo_id, error)
        push.set_exception(error)

    copy = tempfile.TemporaryDirectory(prefix="pix2pix_hub_push_")
    try:
        shutil.copytree(folder, copy.name, dirs_exist_ok=True)
    except OSError as error:  # no room
        failed(error)
    else:  # no pool of threads, for which the process would wait at its end
        threading.Thread(target=work, name="push", daemon=True).start()
    return push


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
        files = [name for name in EXPORT_FILES if name != CARD_NAME and (folder / name).is_file()]
        additions = [
            CommitOperationAdd(CARD_NAME, card.encode()),
            *(CommitOperationAdd(name, folder / name) for name in files),
        ]
        for addition in additions:
            if addition.path_in_repo.endswith((".safetensors", ".png")):
                # one at a time, in this thread: the client's pool of threads would keep the process from ending
                api.preupload_lfs_files(repo_id, [addition], revision=revision)
        stale = (present & set(EXPORT_FILES)) - {CARD_NAME, *files}
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
    metrics = Export(folder).metrics
    where = f": epoch {metrics['epoch']}, step {metrics['step']}" if {"epoch", "step"} <= metrics.keys() else ""
    return f"pix2pix_hub model{where}"


# --- the repository ---


def check_account(repo_id: str, token: str | None = None) -> str:
    """The whole id of a repository that the token may write to as far as the token itself says; nothing is made.

    Args:
        repo_id: `user/name`, or `name` of the user whose token it is.
        token: None: the one of `hf auth login` or HF_TOKEN.

    Raises:
        PushError: not an id, no token, one the Hub does not know, or one that may only read.
    """
    try:
        validate_repo_id(repo_id)
        account = HfApi(token=token).whoami()
        if "/" not in repo_id:
            repo_id = f"{account['name']}/{repo_id}"
        namespaces = [account["name"], *(group["name"] for group in account.get("orgs", []))]
        may_write = _may_write(account, repo_id)
    except Exception as error:
        raise as_push_error(error, repo_id) from error
    namespace = repo_id.split("/")[0]
    if namespace not in namespaces:
        where = " or ".join(f"{name}/{repo_id.split('/')[1]}" for name in namespaces[:3])
        raise PushError(f"the token is {account['name']}'s, who has no part in {namespace}: push to {where}.")
    if not may_write:
        raise PushError(f"the token of {account['name']} may only read, not write to {repo_id}. {LOGIN}")
    return repo_id


def _may_write(account: dict[str, Any], repo_id: str) -> bool:
    """By the token's role; of a fine-grained one, by its permissions on the namespace or the repository itself."""
    token = account.get("auth", {}).get("accessToken", {})
    if token.get("role") != "fineGrained":
        return token.get("role") != "read"
    places = {repo_id, repo_id.split("/")[0]}
    return any(
        "repo.write" in scope.get("permissions", []) and scope.get("entity", {}).get("name") in places
        for scope in token.get("fineGrained", {}).get("scoped", [])
    )


def open_repo(repo_id: str, *, private: bool = False, revision: str | None = None, token: str | None = None) -> None:
    """Make model repository and branch where they do not exist yet.

    Args:
        repo_id: what `check_account` gave.
        private: make it private; an existing one must be so already.
        revision: branch; None: the main one.
        token: as in `check_account`.

    Raises:
        PushError: the Hub refused; or the repository holds something else than a pix2pix_hub model.
    """
    api = HfApi(token=token)
    try:
        try:
            info = api.model_info(repo_id)
        except RepositoryNotFoundError:
            api.create_repo(repo_id, private=private or None, exist_ok=True)  # None: as an organisation has it
        else:
            _check_existing(api, info, private)
        if revision is not None and not revision.startswith("refs/"):
            api.create_branch(repo_id, branch=revision, exist_ok=True)
    except Exception as error:
        raise as_push_error(error, repo_id) from error


def _check_existing(api: HfApi, info: Any, private: bool) -> None:
    if private and not info.private:
        raise PushError(
            f"{info.id} exists and is public, and pushing does not change that: make it private in its settings on the "
            "Hub first, or push to another name."
        )
    if CONFIG_NAME in {file.rfilename for file in info.siblings}:
        config = {}
        with suppress(UserError):
            config = read_object(Path(api.hf_hub_download(info.id, CONFIG_NAME, revision=info.sha)))
        if "architecture" not in config:
            raise PushError(f"{info.id} holds another kind of model, which would be overwritten: push to another name.")


# --- failures ---


class PushError(UserError):
    """A push that failed; `temporary`: the same again may work."""

    def __init__(self, text: str, *, temporary: bool = False) -> None:
        super().__init__(text)
        self.temporary = temporary


def retrying(attempt: Callable[[], Result], repo_id: str) -> Result:
    """What `attempt`, which raises `PushError`, returns, at the latest after `WAITS`."""
    for number in itertools.count():
        try:
            return attempt()
        except PushError as error:
            if not error.temporary:
                raise
            if number == len(WAITS):
                text = f"pushing to {repo_id} failed {number + 1} times, at last because {error}. Push again later."
                raise PushError(text, temporary=True) from error
            logger.warning("Pushing to %s: %s; trying again in %g s.", repo_id, error, WAITS[number])
            time.sleep(WAITS[number])
    raise AssertionError("it ends above")


def as_push_error(error: Exception, repo_id: str) -> PushError:
    """The `PushError` for what the client raised; anything that is no failure of the Hub or the network is re-raised.

    Uploads wrap their errors: the chain of causes is looked through.
    """
    if isinstance(error, UserError) and not isinstance(error, PushError):
        raise error
    cause: BaseException | None = error
    while cause is not None:
        if (found := _explained(cause, repo_id)) is not None:
            return found
        cause = cause.__cause__
    if isinstance(error, ANSWERED_NONSENSE):
        return PushError(f"the Hub's answer makes no sense ({_one_line(error)[:300]})", temporary=True)
    raise error


def _explained(error: BaseException, repo_id: str) -> PushError | None:
    if isinstance(error, PushError):
        return error
    if isinstance(error, LocalTokenNotFoundError):
        return PushError(f"pushing to {repo_id} needs a Hub token. {LOGIN}")
    if isinstance(error, OfflineModeIsEnabled):
        return PushError(f"pushing to {repo_id} needs the Hub, and HF_HUB_OFFLINE is set: unset it.")
    if isinstance(error, HFValidationError):
        return PushError(f"{repo_id!r} is no repository id ({error}): give user/name.")
    if isinstance(error, ValueError) and str(error).startswith("Invalid metadata"):
        return PushError(f"the Hub does not accept the model card: {_one_line(error)}.")
    if isinstance(error, HfHubHTTPError):
        status, said = error.response.status_code, " ".join((error.server_message or _one_line(error)).split())
        if status in (401, 403):
            refused = "the Hub does not accept the token for" if status == 401 else "the token may not write to"
            return PushError(f"{refused} {repo_id} ({said}). {LOGIN}")
        return PushError(f"the Hub answered {status} ({said})", temporary=status in TEMPORARY_STATUS or status >= 500)
    if isinstance(error, OSError | TimeoutError) or type(error).__module__.split(".")[0].startswith("httpx"):
        return PushError(f"the Hub cannot be reached ({_one_line(error)})", temporary=True)
    return None


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
