"""From a published model to a Hugging Face Space that shows it.

pix2pix-hub space push user/maps-demo --model user/pix2pix-maps

The Space holds:

    README.md app.py requirements.txt     the page's entry, the model, the versions it was tested with
    pix2pix_hub/                          this package, without the model that it ships

or with `--sdk static` the files that `pix2pix-hub web` writes (`web/site.py`), which run in the visitor's browser.
"""

from __future__ import annotations

import importlib.metadata
import logging
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.repocard import metadata_load
from huggingface_hub.utils import yaml_dump  # type: ignore[attr-defined]

from pix2pix_hub.hub.package import package_files
from pix2pix_hub.hub.push import PushError, check_account, commit_files, open_repo, push_errors, retrying
from pix2pix_hub.models.fetch import split_revision

logger = logging.getLogger(__name__)

# what the app imports, pinned to the versions installed here
DEPENDENCIES = "gradio[mcp] torch torchmetrics safetensors huggingface_hub numpy pillow tifffile tyro".split()
PERSONAL = ("title", "emoji", "colorFrom", "colorTo", "pinned", "short_description")  # of the README, kept at updates
APP = '''"""Shows {models}. Made by `pix2pix-hub space push`; a variable PIX2PIX_MODEL in the settings shows others."""

import os
import sys

os.environ.setdefault("PIX2PIX_MODEL", {joined!r})

from pix2pix_hub.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main(["app"]))
'''
OURS = re.compile(  # what a Space has of one kind or the other; other files are people's own
    r"(pix2pix_hub|models|runtime)/.*|app\.py|requirements\.txt|index\.html|(page|worker|service_worker)\.js|style\.css|"
    r"site\.json"
)
ISOLATED = {  # headers without which browsers give a page no threads
    "cross-origin-embedder-policy": "require-corp",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "cross-origin",
}
APP_DOES = "translate, draw, compare, and call it as an API or as MCP tools"
README = """---
{front}---

# {title}

Paired image-to-image translation with {links}: {what}.
Made by `pix2pix-hub space push` of pix2pix_hub; the page of each model says how to install that and use it from Python.
"""


def space_files(
    models: Sequence[str], *, title: str, kept: dict[str, Any] | None = None, site: Path | None = None
) -> dict[str, bytes | Path]:
    """Path → content of everything in a Space.

    Args:
        models: Hub ids that it shows, the first one first.
        title: of its page.
        kept: metadata of its present README, of which people's own choices stay.
        site: folder of a static one; None: it is the app.
    """
    names = list(dict.fromkeys(split_revision(model)[0] for model in models))
    app = {
        "sdk": "gradio",
        "sdk_version": importlib.metadata.version("gradio"),
        "python_version": "{}.{}".format(*sys.version_info),
        "app_file": "app.py",
    }
    front = {
        "title": title,
        "emoji": "🖼️",
        "colorFrom": "green",
        "colorTo": "gray",
        **({"sdk": "static", "app_file": "index.html", "custom_headers": ISOLATED} if site else app),
        "pinned": False,
        "license": "apache-2.0",
        "models": names,
        "tags": ["pix2pix", "image-to-image", *([] if site else ["mcp-server"])],
        **{name: value for name, value in (kept or {}).items() if name in PERSONAL},
    }
    links = ", ".join(f"[{model}](https://huggingface.co/{model})" for model in names)
    what = "draw in your browser, where the model runs" if site else APP_DOES
    readme = README.format(front=yaml_dump(front, sort_keys=False), title=front["title"], links=links, what=what)
    if site is not None:
        own = {path.relative_to(site).as_posix(): path for path in sorted(site.rglob("*")) if path.is_file()}
        return {"README.md": readme.encode(), **own}
    versions = {name: importlib.metadata.version(name.split("[")[0]).split("+")[0] for name in DEPENDENCIES}
    return {
        "README.md": readme.encode(),
        "app.py": APP.format(models=", ".join(models), joined=",".join(models)).encode(),
        "requirements.txt": "".join(f"{name}=={version}\n" for name, version in versions.items()).encode(),
        **package_files(),
    }


def push_space(
    repo_id: str,
    models: Sequence[str],
    *,
    write_site: Callable[[Path], object] | None = None,
    hardware: str | None = None,
    private: bool = False,
    token: str | None = None,
) -> str:
    """Make or update a Space, in one commit; its files that are no longer needed are deleted by the same commit.

    Args:
        repo_id: `user/name`, or `name` of the user whose token it is.
        models: Hub ids that it shows.
        write_site: makes the Space a static one: writes the site of the models to a folder; called when all else is
            known to be good.
        hardware: as the Hub calls it ("cpu-basic", "t4-small", "zero-a10g"); None: what it has, at first the free one.
        private: make it private; an existing one must be so already.
        token: None: the one of `hf auth login` or HF_TOKEN.

    Returns:
        Address of the commit.

    Raises:
        PushError: no right to write there; a model that is not on the Hub, or private where everybody could then read
            its weights; a Space that holds another app; or it failed to the end.
    """
    api = HfApi(token=token)

    def check() -> str:
        space = check_account(repo_id, token)
        with push_errors(space):
            for model in models:
                _check_model(api, model, weights_shown=write_site is not None and not private)
        return space

    def attempt() -> str:
        with push_errors(space):
            open_repo(space, kind="space", sdk="static" if site else "gradio", private=private, token=token)
            head = api.space_info(space)
            present, kept = {file.rfilename for file in head.siblings or []}, None
            if "README.md" in present:
                readme = api.hf_hub_download(space, "README.md", repo_type="space", revision=head.sha)
                kept = metadata_load(readme)
            files = space_files(models, title=space.split("/")[-1], kept=kept, site=site)
            stale = [name for name in present - files.keys() if OURS.fullmatch(name)]
            url = commit_files(api, head, files, stale, f"Show {', '.join(models)}")
            if hardware is not None:
                api.request_space_hardware(space, hardware)  # type: ignore[arg-type]
        return url

    space = retrying(check, repo_id, first=True)
    with tempfile.TemporaryDirectory(prefix="pix2pix_hub_space_") as folder:
        site = Path(folder) / "site" if write_site else None
        if write_site and site:
            write_site(site)
        return retrying(attempt, space)


def _check_model(api: HfApi, model: str, *, weights_shown: bool) -> None:
    name, revision = split_revision(model)
    try:
        info = api.model_info(name, revision=revision)
    except RevisionNotFoundError:
        raise PushError(f"the model {name} has no revision {revision}: name another, or none.") from None
    except RepositoryNotFoundError:
        raise PushError(f"the model {name} is not on the Hub: `pix2pix-hub push RUN {name}` puts it there.") from None
    if info.private and weights_shown:
        raise PushError(f"{model} is private, and a static Space shows its weights to everybody: add --private.")
    if info.private:
        logger.warning("%s is private: give the Space a secret HF_TOKEN that may read it.", model)
