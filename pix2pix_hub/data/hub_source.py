"""A data set from the Hub at a known commit, or from the cache of an earlier download when the Hub is out of reach."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import datasets
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from pix2pix_hub.util import UserError

TIMEOUT_SECONDS = 10


def open_on_hub(
    name: str, revision: str | None, advice: str, load: Callable[..., Any] | None = None
) -> tuple[Any, str]:
    """Load every split of data set `name` (user/name).

    Args:
        advice: what works instead, the end of an error's text.
        load: called with the name and `revision`, a commit; None: `datasets.load_dataset`, the only one that finds
            earlier downloads.

    Returns:
        What `load` returns, and the commit.

    Raises:
        UserError: no such id, private or gated, no such revision, or neither network nor an earlier download.
    """
    absent = f"--dataset {name!r} is neither a folder or file on this machine nor a data set on the Hub"
    if not re.fullmatch(r"([\w.-]+/)?[\w.-]+", name, re.ASCII) or set(name) <= set("./"):
        raise UserError(f"{absent} (ids there look like user/name). {advice}")
    try:
        # `load_dataset` alone would retry for half a minute when there is no network
        commit = HfApi().dataset_info(name, revision=revision, timeout=TIMEOUT_SECONDS).sha
    except GatedRepoError as error:
        page = f"https://huggingface.co/datasets/{name}"
        raise UserError(f"--dataset {name} is gated: ask for access at {page}, then `hf auth login`.") from error
    except RepositoryNotFoundError as error:
        raise UserError(f"{absent}. If it is private, `hf auth login` first. {advice}") from error
    except RevisionNotFoundError as error:
        raise UserError(f"--dataset-revision {revision!r} does not exist in data set {name}.") from error
    except Exception as error:  # no network, HF_HUB_OFFLINE, a proxy: what was downloaded before still works
        if load is not None:
            raise UserError(f"{absent} that could be reached ({describe(error)}). {advice}") from error
        return _open_cached(name, revision, f"{absent} that could be reached", error, advice)
    try:
        return (load or datasets.load_dataset)(name, revision=commit), str(commit)
    except Exception as error:
        raise UserError(f"--dataset {name}: its download failed ({describe(error)}). {advice}") from error


def _open_cached(name: str, revision: str | None, absent: str, unreachable: Exception, advice: str) -> tuple[Any, str]:
    try:
        with _offline():
            builder = datasets.load_dataset_builder(name)
            loaded = builder.as_dataset()
    except Exception as error:
        way_out = (
            "Unset HF_HUB_OFFLINE to look there."
            if isinstance(unreachable, OfflineModeIsEnabled)
            else "Check the network and the spelling. Without a network, HF_HUB_OFFLINE=1 uses earlier downloads."
        )
        raise UserError(
            f"{absent} ({describe(unreachable)}), and no earlier download of it is cached. {way_out} {advice}"
        ) from error
    if revision not in (None, builder.hash):
        raise UserError(
            f"--dataset-revision {revision}: the Hub is out of reach and the earlier download of {name} is commit "
            f"{builder.hash}. Connect, or give that commit."
        ) from unreachable
    return loaded, str(builder.hash)


@contextmanager
def _offline() -> Iterator[None]:
    """Lets `datasets` go straight to its cache."""
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def describe(error: Exception) -> str:
    """An exception in one line: its class and the first line of its text."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
