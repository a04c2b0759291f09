"""Fixtures that several test files share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browsing import chromium
from hub_server import HubServer
from hypothesis import settings

if TYPE_CHECKING:
    from playwright.sync_api import Browser

settings.register_profile("untimed", deadline=None)  # how long an example takes says nothing on a busy machine
settings.load_profile("untimed")

# Test processes share the cores: more threads than that would spin each other down. Read by torch when it is imported.
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _WORKERS)))
# What is compared to the last digit is computed in float32, also where the CPU could do less, by all processes started.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real pairs (`facades/`, `maps/`, `edges2shoes/`), which is not part of the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("PIX2PIX_TEST_DATA", beside))
    if not (folder / "facades").is_dir():
        pytest.skip(f"no real pairs in {folder}; set PIX2PIX_TEST_DATA to a folder that holds facades/")
    return folder


@pytest.fixture
def datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for `datasets`, so that a test neither sees nor leaves anything in the user's own."""
    import datasets

    folder = tmp_path / "datasets_cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub of this test's own, which this process uses with a write token (see hub_server.py).

    Without a token: `monkeypatch.setenv("HF_TOKEN", "")`; another process: `env=hub.environment()`.
    """
    from huggingface_hub import close_session

    with HubServer(tmp_path / "hf_home") as server:
        server.use_in_process(monkeypatch)
        yield server
        close_session()
    assert not server.unknown, f"routes the test Hub does not have: {server.unknown}"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A real Chromium."""
    with chromium() as browser:
        yield browser
