"""From an export to the Hub: one commit with exactly its files, and a wheel of this package for whoever uses it.

pix2pix-hub push runs/facades_default_001 user/pix2pix-facades
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelInfo, SpaceInfo
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
from pix2pix_hub.hub.package import WHEEL_NAME, wheel
from pix2pix_hub.util import UserError, read_object

logger = logging.getLogger(__name__)

SITE_NAME = "site.json"  # which `pix2pix-hub web` writes, and by which its sites are known
WAITS = (2.0, 5.0, 15.0, 45.0, 120.0)  # seconds before each new attempt
FIRST_ATTEMPTS = 3  # to reach a Hub that has not answered yet: somebody waits to hear that there is no network
LOGIN = "Run `hf auth login`, or set HF_TOKEN, with a token that may write (https://huggingface.co/settings/tokens)."
# timeout, conflict, somebody else's commit, too many requests: the Hub may say yes a little later; so may 5xx
TEMPORARY_STATUS = {408, 409, 412, 425, 429}
ANSWERED_NONSENSE = (AssertionError, AttributeError, LookupError, TypeError, ValueError)  # the client, without a check


Result = TypeVar("Result")


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
    """Commit the export's files and this package's wheel to a model repository, which is made where it does not exist.

    The card is made anew from the export; what a person wrote below its marker, here or on the Hub, stays. Files of an
    earlier push that this export lacks are deleted by the same commit; files that are not an export's (LICENSE,
    .gitattributes, pictures, …) are left alone. What the Hub or the network fails at for the moment is tried again,
    after `WAITS`; at first, before it has answered at all, for a few seconds only.

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
    repo_id = retrying(lambda: check_account(repo_id, token), repo_id, first=True)
    retrying(lambda: open_repo(repo_id, private=private, revision=revision, token=token), repo_id)
    how: dict[str, Any] = {"revision": revision, "token": token, "message": message, "license": license}
    return retrying(lambda: commit_export(export.folder, repo_id, **how), repo_id)


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
    with push_errors(repo_id):
        head = api.model_info(repo_id, revision=revision)
        present = {file.rfilename for file in head.siblings or []}
        card_file = api.hf_hub_download(repo_id, CARD_NAME, revision=head.sha) if CARD_NAME in present else None
        published = read_card(Path(card_file)) if card_file else None
        files: dict[str, bytes | Path] = {
            name: folder / name for name in EXPORT_FILES if (folder / name).is_file() or name == CARD_NAME
        }
        place = repo_id if revision is None else f"{repo_id}@{revision}"
        files[CARD_NAME] = make_card(folder, place, published=published, license=license).encode()
        if (package := wheel()) is not None:
            files[WHEEL_NAME] = package
        metrics = Export(folder).metrics
        where = f": epoch {metrics['epoch']}, step {metrics['step']}" if {"epoch", "step"} <= metrics.keys() else ""
        title = message or f"pix2pix_hub model{where}"
        ours = {name for name in present if name in EXPORT_FILES or fnmatch(name, "pix2pix_hub-*.whl")}
        return commit_files(api, head, files, ours - files.keys(), title, revision)


def commit_files(
    api: HfApi,
    head: ModelInfo | SpaceInfo,
    files: Mapping[str, bytes | Path],
    stale: Collection[str],
    title: str,
    revision: str | None = None,
) -> str:
    """One commit on `head` that adds `files`, path → content, and deletes the stale ones; its address."""
    kind = "space" if isinstance(head, SpaceInfo) else "model"
    additions = [CommitOperationAdd(name, content) for name, content in files.items()]
    for addition in additions:
        if addition.path_in_repo.endswith((".safetensors", ".png", ".onnx", ".whl")):
            # one at a time, in this thread: the client's pool of threads would keep the process from ending
            api.preupload_lfs_files(head.id, [addition], repo_type=kind, revision=revision)
    try:
        commit = api.create_commit(
            head.id,
            [*additions, *(CommitOperationDelete(name) for name in sorted(stale))],
            commit_message=title,
            repo_type=kind,
            revision=revision,
            parent_commit=head.sha,  # after somebody else's commit: look again
        )
        return str(commit.commit_url)
    except Exception as error:  # the answer may have been lost on its way, or spoilt by a proxy
        try:
            sha = api.repo_info(head.id, repo_type=kind, revision=revision).sha
            there = api.get_paths_info(head.id, [*files, *stale], repo_type=kind, revision=sha)
            ours = {addition.path_in_repo: addition for addition in additions}
            landed = {file.path for file in there} == ours.keys()
            landed = landed and all(_is_same(ours[file.path], file) for file in there)
        except Exception:
            known = _explained(error, head.id)
            words = f"{known or repr(error)}, and does not say whether the commit has landed"
            raise PushError(words, temporary=known is not None and known.temporary) from error
        if not landed:
            raise
        return f"{api.endpoint}/{'spaces/' * (kind == 'space')}{head.id}/commit/{sha}"


def _is_same(ours: CommitOperationAdd, there: Any) -> bool:
    if there.lfs:
        return bool(there.lfs.sha256 == ours.upload_info.sha256.hex())
    with ours.as_file() as file:
        content = file.read()
    return bool(there.blob_id == hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest())


# --- the repository ---


def check_account(repo_id: str, token: str | None = None) -> str:
    """The whole id of a repository that the token may write to as far as the token itself says; nothing is made.

    Args:
        repo_id: `user/name`, or `name` of the user whose token it is.
        token: None: the one of `hf auth login` or HF_TOKEN.

    Raises:
        PushError: not an id, no token, one the Hub does not know, or one that may only read.
    """
    with push_errors(repo_id):
        validate_repo_id(repo_id)
        account = HfApi(token=token).whoami()
        if "/" not in repo_id:
            repo_id = f"{account['name']}/{repo_id}"
        namespace, name = repo_id.split("/")
        own = [account["name"], *(group["name"] for group in account.get("orgs", []))]
        rights = account.get("auth", {}).get("accessToken", {})
        may_write = rights.get("role") != "read"
        if rights.get("role") == "fineGrained":  # by its permissions on the namespace or the repository itself
            scopes = rights.get("fineGrained", {}).get("scoped", [])
            writable = [
                each.get("entity", {}).get("name") for each in scopes if "repo.write" in each.get("permissions", [])
            ]
            may_write = repo_id in writable or namespace in writable
        if namespace not in own:
            where = " or ".join(f"{each}/{name}" for each in own[:3])
            raise PushError(f"the token is {account['name']}'s, who has no part in {namespace}: push to {where}.")
        if not may_write:
            raise PushError(f"the token of {account['name']} may only read, not write to {repo_id}. {LOGIN}")
        return repo_id


def open_repo(
    repo_id: str,
    *,
    kind: str = "model",
    sdk: str | None = None,
    private: bool = False,
    revision: str | None = None,
    token: str | None = None,
) -> None:
    """Make repository and branch where they do not exist yet.

    Args:
        repo_id: what `check_account` gave.
        kind: "model" or "space".
        sdk: of a new space.
        private: make it private; an existing one must be so already.
        revision: branch; None: the main one.
        token: as in `check_account`.

    Raises:
        PushError: the Hub refused; or the repository holds something else than a model, or the app, of pix2pix_hub.
    """
    api = HfApi(token=token)
    with push_errors(repo_id):
        try:
            info = api.repo_info(repo_id, repo_type=kind)
        except RepositoryNotFoundError:  # private: None is as an organisation has it
            api.create_repo(repo_id, repo_type=kind, space_sdk=sdk, private=private or None, exist_ok=True)
        else:
            _check_existing(api, info, private)
        if revision is not None and not revision.startswith("refs/"):
            api.create_branch(repo_id, branch=revision, exist_ok=True)


def _check_existing(api: HfApi, info: Any, private: bool) -> None:
    if private and not info.private:
        raise PushError(
            f"{info.id} exists and is public, and pushing does not change that: make it private in its settings on the "
            "Hub first, or push to another name."
        )
    present = {file.rfilename for file in info.siblings}
    if isinstance(info, SpaceInfo):
        ours = SITE_NAME in present or any(name.startswith("pix2pix_hub/") for name in present)
        other = bool({"app.py", "index.html"} & present) and not ours
    elif other := CONFIG_NAME in present:
        with suppress(UserError):
            config = read_object(Path(api.hf_hub_download(info.id, CONFIG_NAME, revision=info.sha)))
            other = "architecture" not in config
    if other:
        what = "app" if isinstance(info, SpaceInfo) else "kind of model"
        raise PushError(f"{info.id} holds another {what}, which would be overwritten: push to another name.")


# --- failures ---


class PushError(UserError):
    """A push that failed; `temporary`: the same again may work; `reached`: the Hub has answered, or was not asked."""

    def __init__(self, text: str, *, temporary: bool = False, reached: bool = True) -> None:
        super().__init__(text)
        self.temporary, self.reached = temporary, reached


def retrying(attempt: Callable[[], Result], repo_id: str, *, first: bool = False) -> Result:
    """Call `attempt`, again after each of `WAITS` while it raises a temporary `PushError`; returns its result.

    Args:
        attempt: whatever asks the Hub.
        repo_id: for the words.
        first: nothing has been heard of the Hub yet: where it cannot be reached, `FIRST_ATTEMPTS` are enough.
    """
    for number, wait in enumerate((*WAITS, None), 1):
        try:
            return attempt()
        except PushError as error:
            if not error.temporary:
                raise
            if wait is None or (first and not error.reached and number == FIRST_ATTEMPTS):
                text = f"pushing to {repo_id} failed {number} times, at last because {error}. Push again later."
                raise PushError(text, temporary=True) from error
            logger.warning("Pushing to %s: %s; trying again in %g s.", repo_id, error, wait)
            time.sleep(wait)
    raise AssertionError("it ends above")


@contextmanager
def push_errors(repo_id: str) -> Iterator[None]:
    """Raise `PushError` for what the client raises; what is no failure of the Hub or the network stays as it is."""
    try:
        yield
    except Exception as error:
        explained = _explained(error, repo_id)
        if explained is None or explained is error:
            raise
        raise explained from error


def _explained(error: Exception, repo_id: str) -> PushError | None:
    """Uploads wrap their errors: the chain of causes is looked through."""
    cause: BaseException | None = error
    while cause is not None and not (isinstance(error, UserError) and cause is not error):
        if (found := _explained_alone(cause, repo_id)) is not None:
            return found
        cause = cause.__cause__
    if isinstance(error, ANSWERED_NONSENSE) and not isinstance(error, UserError):
        return PushError(f"the Hub's answer makes no sense ({_one_line(error)[:300]})", temporary=True)
    return None


def _explained_alone(error: BaseException, repo_id: str) -> PushError | None:
    match error:
        case PushError():
            return error
        case LocalTokenNotFoundError():
            return PushError(f"pushing to {repo_id} needs a Hub token. {LOGIN}")
        case OfflineModeIsEnabled():
            return PushError(f"pushing to {repo_id} needs the Hub, and HF_HUB_OFFLINE is set: unset it.")
        case HFValidationError():
            return PushError(f"{repo_id!r} is no repository id ({error}): give user/name.")
        case ValueError() if str(error).startswith("Invalid metadata"):
            return PushError(f"the Hub does not accept the model card: {_one_line(error)}.")
        case HfHubHTTPError():
            status, said = error.response.status_code, " ".join((error.server_message or _one_line(error)).split())
            if status in (401, 403):
                refused = "the Hub does not accept the token for" if status == 401 else "the token may not write to"
                return PushError(f"{refused} {repo_id} ({said}). {LOGIN}")
            return PushError(
                f"the Hub answered {status} ({said})", temporary=status in TEMPORARY_STATUS or status >= 500
            )
    if isinstance(error, OSError | TimeoutError) or type(error).__module__.split(".")[0].startswith("httpx"):
        return PushError(f"the Hub cannot be reached ({_one_line(error)})", temporary=True, reached=False)
    return None


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
