"""Loads and pushes against a Hub that fails: every fault of a request, before and after it was obeyed.

A load gives bitwise the weights that are published, from the Hub or from a whole cache, or a sentence; and once the Hub
is well again it gives them, whatever the fault left behind. A push that says it is done has left exactly one commit,
with exactly the export's files; one that is refused has left none, or says that it cannot know, and works the next
time.
"""

from __future__ import annotations

import random as random_module
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from hub.run_exports import FILES, PUSHED, make_export
from hub_server import HubServer
from huggingface_hub import close_session
from huggingface_hub.utils import disable_progress_bars

from pix2pix_hub.hub.push import push_export
from pix2pix_hub.inference.pipeline import Pix2PixPipeline
from pix2pix_hub.models import UNetGenerator
from pix2pix_hub.util import UserError

COUNT = 60
SECONDS = 60.0
REPO = "tester/streets"
STATUSES = (400, 401, 403, 404, 408, 409, 412, 416, 429, 500, 502, 503, 504)
BODIES = (b"<html>Log in to this network</html>", b"", b"null", b"{}", b"[]", b"[7]", b'"text"', b'{"error": "x"}')
LOADING = (
    "GET /api/models/[^/]+/[^/]+/revision",
    "GET /api/models/.*/tree",
    "HEAD .*/resolve/.*config.json",
    "GET .*/resolve/.*config.json",
    "(HEAD|GET) .*/resolve/.*safetensors",
    "GET /storage/",
    "GET|HEAD",
)
PUSHING = (
    "GET /api/whoami",
    "POST /api/repos/create",
    "POST /api/validate-yaml",
    "GET /api/models/",
    "GET .*/resolve/",
    "POST .*/preupload/",
    "POST .*/objects/batch",
    "PUT /lfs/",
    "POST /lfs/.*/verify",
    "POST .*/commit/",
    "POST .*/commit/",
    "POST .*/commit/",
    "GET|POST|PUT",
)


def cases(random: random_module.Random, folder: Path) -> Iterator[tuple[str, str]]:
    """See `COUNT`."""
    exports = [make_export(folder / str(number) / "model", number) for number in range(2)]
    disable_progress_bars()
    while True:
        home = folder / "hub"
        shutil.rmtree(home, ignore_errors=True)
        with HubServer(home) as hub, pytest.MonkeyPatch.context() as patch:
            hub.use_in_process(patch)
            patch.setattr("pix2pix_hub.hub.push.WAITS", (0.0,) * random.randrange(3))
            patch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 2)
            patch.setattr("huggingface_hub.constants.HF_HUB_ETAG_TIMEOUT", 2)
            patch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
            patch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
            # what the client asks for itself: of a nonsense answer it thinks in all that follows (huggingface_hub 2.4)
            patch.setattr("huggingface_hub.utils._detect_agent._registry", {})
            case = random.choice((_load, _load, _load_cached, _push, _push, _push))
            yield _bounded(partial(case, random, hub, exports))
            close_session()


def _bounded(case: Callable[[], tuple[str, str]]) -> tuple[str, str]:
    answer = [(getattr(case, "func", case).__name__.strip("_"), "hang")]

    def run() -> None:
        try:
            answer[0] = case()
        except Exception as error:
            answer[0] = (answer[0][0], f"traceback: {type(error).__name__}: {str(error)[:100]}")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(SECONDS)
    return answer[0]


def _arrange(random: random_module.Random, hub: HubServer, routes: tuple[str, ...]) -> str:
    """One to three faults to come; what they are."""
    names = []
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        route, times, status = random.choice(routes), random.choice((1, 1, 2, 99)), random.choice(STATUSES)
        file = random.choice(("config", "model.safetensors", "preprocessor_config", "discriminator/config"))
        file, body = f"(GET|HEAD) .*/resolve/[^/]*/{file}", random.choice(BODIES)
        faults: dict[str, Callable[[], object]] = {
            "refused": partial(hub.fail, route, status=status, times=times),
            "refused after": partial(hub.spoil, route, lambda body: b"{}", status=status, times=times),
            "cut": partial(hub.cut, route, after=random.choice((0, 1, 20, 3000)), times=times),
            "dropped": partial(hub.drop, route, times=times),
            "length": partial(hub.spoil, route, longer=random.choice((-3, 1, 1000)), times=times),
            "drip": partial(hub.spoil, route, drip_seconds=0.005, times=times),
            "nonsense": partial(hub.spoil, route, lambda _, body=body: body, times=times),
            "404 of one": partial(hub.fail, file, status=404, error_code="EntryNotFound", times=times),
        }
        names.append(random.choice(list(faults)))
        faults[names[-1]]()
    return names[0] if len(names) == 1 else "several"


# ------------------------------------------------------------------------------------------------------------- loads


def _load(random: random_module.Random, hub: HubServer, exports: list[Path]) -> tuple[str, str]:
    """With an empty cache."""
    hub.add_folder(REPO, exports[0])
    name = _arrange(random, hub, LOADING)
    outcome = _loaded(random, exports[0])
    hub.faults.clear()
    close_session()  # the next try is another process's
    if outcome in ("right", "refused") and (later := _loaded(random, exports[0])) != "right":
        outcome = f"afterwards {later}"
    return f"load: {name}", outcome


def _load_cached(random: random_module.Random, hub: HubServer, exports: list[Path]) -> tuple[str, str]:
    """With a whole cache, of the published commit or of the one before."""
    repo = hub.add_folder(REPO, exports[0])
    assert _loaded(random, exports[0], everything=True) == "right"
    changed = random.random() < 0.3
    if changed:
        paths = [path for path in exports[1].rglob("*") if path.is_file()]
        hub.add_commit(repo, {path.relative_to(exports[1]).as_posix(): path.read_bytes() for path in paths})
    name = _arrange(random, hub, LOADING)
    outcome = _loaded(random, *(exports if changed else exports[:1]))
    final = "401" in outcome or "403" in outcome
    hub.faults.clear()
    close_session()  # the next try is another process's
    if outcome == "refused" and not changed and not final:
        outcome = "refused, with a whole cache"
    elif outcome in ("right", "refused") and (later := _loaded(random, exports[changed])) != "right":
        outcome = f"afterwards {later}"
    return f"load, {'older' if changed else 'whole'} cache: {name}", outcome


def _loaded(random: random_module.Random, *exports: Path, everything: bool = False) -> str:
    """Whether the weights are those of one of `exports`."""
    try:
        if everything or random.random() < 0.5:
            pipeline = Pix2PixPipeline.from_pretrained(REPO, device="cpu", dtype="float32")
            network: torch.nn.Module = pipeline.generator
            if pipeline.discriminator is None:
                return "the discriminator is missing"
        else:
            network = UNetGenerator.from_pretrained(REPO)
    except UserError as error:
        return "refused" if len(str(error)) < 4000 else "a sentence without end"
    found = network.state_dict()
    for export in exports:
        expected = UNetGenerator.from_pretrained(export).state_dict()
        if found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found):
            return "right"
    return "wrong weights"


# ------------------------------------------------------------------------------------------------------------ pushes


def _push(random: random_module.Random, hub: HubServer, exports: list[Path]) -> tuple[str, str]:
    """To no repository, an empty one, or one with an older export and a file of somebody's."""
    before = random.choice(("nothing", "empty", "older"))
    if before != "nothing":
        hub.create(REPO)
    if before == "older":
        push_export(exports[1], REPO)
        hub.add_commit(hub.repo(REPO), {"LICENSE": "MIT"})
    commits = len(hub.repo(REPO).commits) if before != "nothing" else 1
    name = _arrange(random, hub, PUSHING)
    try:
        url = push_export(exports[0], REPO)
        said = ""
    except UserError as error:
        url, said = "", str(error)
        if len(said) > 4000:
            return f"push: {name}", "a sentence without end"
    hub.faults.clear()
    close_session()  # the next try is another process's
    made = len(hub.repo(REPO).commits) - commits if ("models", REPO) in hub.repos else 0
    if not url and (not made or "does not say whether the commit has landed" in said):
        push_export(exports[0], REPO)
        return f"push: {name}", "refused" if _holds(hub, exports[0]) else "wrong afterwards"
    if not url:
        return f"push: {name}", f"called a failure, with {made} commits"
    if made != 1 or not url.endswith(hub.repo(REPO).head().oid) or not _holds(hub, exports[0]):
        return f"push: {name}", f"called done, with {made} commits"
    return f"push: {name}", "right"


def _holds(hub: HubServer, export: Path) -> bool:
    """Whether the branch has the export's files, byte by byte, and no others of one."""
    tree = hub.repo(REPO).head().tree
    same = all(tree[name].content == (export / name).read_bytes() for name in FILES - {"README.md"} if name in tree)
    return same and set(tree) - {"LICENSE"} == PUSHED
