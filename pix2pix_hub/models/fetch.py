"""From a Hub repository id, or a local folder, to a folder that holds the files asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download


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

    Args:
        repo_or_folder: a local folder, or a repository id (`user/name`).
        files: exact names inside it, with `/` between folders.
        revision, token, cache_dir, force_download, local_files_only: as in `huggingface_hub`.
    """
    if Path(repo_or_folder).is_dir():
        return Path(repo_or_folder)
    return Path(
        snapshot_download(
            str(repo_or_folder),
            allow_patterns=list(files),
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
        )
    )
