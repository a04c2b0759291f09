"""Before anything is trained or uploaded: may this token write to that repository, and is it one of ours?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from pix2pix_hub.hub.failures import LOGIN, PushError, as_push_error
from pix2pix_hub.util import UserError, read_object


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


def open_repo(repo_id: str, *, private: bool = False, revision: str | None = None, token: str | None = None) -> str:
    """Make model repository and branch where they do not exist yet; the repository's whole id.

    Args:
        repo_id, token: as in `check_account`.
        private: make it private; an existing one must be so already.
        revision: branch; None: the main one.

    Raises:
        PushError: as `check_account`; or the repository holds something else than a pix2pix_hub model.
    """
    repo_id = check_account(repo_id, token)
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
    return repo_id


def _check_existing(api: HfApi, info: Any, private: bool) -> None:
    if private and not info.private:
        raise PushError(
            f"{info.id} exists and is public, and pushing does not change that: make it private in its settings on the "
            "Hub first, or push to another name."
        )
    if "config.json" in {file.rfilename for file in info.siblings}:
        path = Path(api.hf_hub_download(info.id, "config.json", revision=info.sha))
        if not _is_ours(path):
            raise PushError(f"{info.id} holds another kind of model, which would be overwritten: push to another name.")


def _is_ours(config_file: Path) -> bool:
    try:
        return "architecture" in read_object(config_file)
    except UserError:
        return False
