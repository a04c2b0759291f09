"""Spaces: the package and an entry to its app, one commit, and the folder starts by itself and answers."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client, handle_file
from hub_server import HubServer
from huggingface_hub.repocard import metadata_load
from launching import free_port, reachable, wait_for
from packaging.specifiers import SpecifierSet
from PIL import Image
from tiny_exports import write_tiny_export

from pix2pix_hub.cli import main
from pix2pix_hub.hub.space import push_space, space_files
from pix2pix_hub.inference.pipeline import Pix2PixPipeline
from pix2pix_hub.util import UserError

PATIENCE = 120  # seconds


def test_a_space_holds_the_package_and_the_entry_to_its_app() -> None:
    files = space_files(["user/maps", "user/shoes"], title="maps-demo")
    front, requirements = files["README.md"].decode().split("---\n")[1], files["requirements.txt"].decode()
    gradio = importlib.metadata.version("gradio")
    for line in (f"sdk_version: {gradio}", "sdk: gradio", "app_file: app.py", "- user/maps\n- user/shoes"):
        assert f"{line}\n" in front
    assert "'PIX2PIX_MODEL', 'user/maps,user/shoes'" in files["app.py"].decode().replace('"', "'")
    assert all(re.fullmatch(r"[\w\[\]]+==[\d.]+", line) for line in requirements.splitlines())
    assert f"gradio[mcp]=={gradio}" in requirements
    tops = {name.split("/")[1] for name in files if name.startswith("pix2pix_hub/")}
    assert {"ui", "inference", "models"} <= tops and "assets" not in tops
    assert not [name for name in files if "__pycache__" in name or "safetensors" in name]
    assert {name.split("/")[0] for name in files} == {"README.md", "app.py", "requirements.txt", "pix2pix_hub"}
    assert {"pix2pix_hub/ui/style.css", "pix2pix_hub/ui/canvas/canvas.js"} <= set(files)
    assert sum(map(len, files.values())) < 2e6


def test_the_repository_itself_is_a_space() -> None:
    root = Path(__file__).parents[2]
    front = metadata_load(root / "README.md")
    assert front is not None and front["sdk"] == "gradio" and front["app_file"] == "app.py"
    assert front["sdk_version"] == importlib.metadata.version("gradio"), "README names the version that tests run with"
    (required,) = [line.split("#")[0] for line in (root / "requirements.txt").open() if line.startswith("gradio")]
    assert SpecifierSet(required.strip().removeprefix("gradio[mcp]")).contains(front["sdk_version"])
    assert (root / front["app_file"]).is_file()


def test_push_is_one_commit_and_an_update_deletes_what_is_no_longer_needed(hub: HubServer, tmp_path: Path) -> None:
    model = f"tester/maps@{hub.add_folder('tester/maps', write_tiny_export(tmp_path / 'model')).head().oid}"
    assert main(["space", "push", "tester/demo", "--model", "tester/maps", "--private"]) == 0
    space = hub.repo("tester/demo", "spaces")
    assert space.private and space.settings["sdk"] == "gradio" and len(space.commits) == 2
    assert space.files() - {".gitattributes"} == set(space_files(["tester/maps"], title="demo"))

    readme = (
        space.read("README.md").decode().replace("title: demo", "title: My maps").replace("version: ", "version: 0")
    )
    hub.add_commit(space, {"README.md": readme, "pix2pix_hub/old.py": "gone", "LICENSE": "mine"})
    push_space("demo", [model], hardware="t4-small")  # a model of a revision is shown at it
    assert len(space.commits) == 4 and "pix2pix_hub/old.py" not in space.files() and "LICENSE" in space.files()
    updated = space.read("README.md").decode()
    assert "title: My maps\n" in updated and f"sdk_version: {importlib.metadata.version('gradio')}\n" in updated
    assert "models:\n- tester/maps\n" in updated and "[tester/maps](https://huggingface.co/tester/maps)" in updated
    assert f'"PIX2PIX_MODEL", {model!r}' in space.read("app.py").decode()
    assert space.settings["hardware"] == "t4-small"


def test_a_static_space_holds_the_site_and_replaces_the_app(hub: HubServer, tmp_path: Path) -> None:
    def write_site(folder: Path) -> None:
        (folder / "models").mkdir(parents=True)
        for name in ("index.html", "models/a.onnx"):
            (folder / name).write_text(name)
        (folder / "site.json").write_text(json.dumps({"files": ["index.html", "models/a.onnx"]}))

    hub.add_folder("tester/maps", write_tiny_export(tmp_path / "model"))
    push_space("demo", ["tester/maps"])
    space = hub.repo("tester/demo", "spaces")
    hub.add_commit(space, {"LICENSE": "mine", "README.md": space.read("README.md").decode().replace("🖼️", "🏠")})
    push_space("demo", ["tester/maps"], write_site=write_site)
    assert len(space.commits) == 4
    site = {"site.json", "index.html", "models/a.onnx"}
    assert space.files() - {".gitattributes", "LICENSE", "README.md"} == site
    (tmp_path / "README.md").write_bytes(space.read("README.md"))
    front = metadata_load(tmp_path / "README.md")
    assert front is not None and front["sdk"] == "static" and front["app_file"] == "index.html"
    assert front["custom_headers"]["cross-origin-embedder-policy"] == "require-corp" and front["emoji"] == "🏠"
    push_space("demo", ["tester/maps"])  # and back
    assert "app.py" in space.files() and not site & space.files()


def test_a_private_models_weights_are_not_shown_to_everybody(hub: HubServer, tmp_path: Path) -> None:
    hub.add_folder("tester/maps", write_tiny_export(tmp_path / "model"))
    hub.repo("tester/maps").private = True
    with pytest.raises(UserError, match="is private, and a static Space shows its weights to everybody: add --private"):
        push_space("demo", ["tester/maps"], write_site=lambda folder: folder.mkdir())
    assert ("spaces", "tester/demo") not in hub.repos


def test_what_cannot_be_pushed_is_refused_before_anything_is_made(hub: HubServer, tmp_path: Path) -> None:
    hub.add_folder("tester/maps", write_tiny_export(tmp_path / "model"))
    hub.create("tester/other", {"app.py": "import streamlit"}, kind="spaces")
    hub.create("tester/open", {"README.md": "x"}, kind="spaces")
    for repo_id, models, private, text in (
        ("tester/new", ["tester/nothing"], False, "tester/nothing is not on the Hub: `pix2pix-hub push"),
        ("tester/new", ["tester/maps@v9"], False, "tester/maps has no revision v9"),
        ("tester/new", ["no id at all"], False, "is no repository id"),
        ("somebody/new", ["tester/maps"], False, "has no part in somebody"),
        ("tester/other", ["tester/maps"], False, "holds another app"),
        ("tester/open", ["tester/maps"], True, "is public"),
    ):
        with pytest.raises(UserError, match=text):
            push_space(repo_id, models, private=private)
    assert ("spaces", "tester/new") not in hub.repos
    assert len(hub.repo("tester/other", "spaces").commits) == len(hub.repo("tester/open", "spaces").commits) == 2


def test_the_pushed_folder_starts_by_itself_and_answers(hub: HubServer, tmp_path: Path) -> None:
    """A process of its own, whose only pix2pix_hub is the Space's, and whose model comes from the Hub."""
    export = write_tiny_export(tmp_path / "model")
    hub.add_folder("tester/maps", export)
    push_space("tester/demo", ["tester/maps"])
    space = hub.repo("tester/demo", "spaces")
    folder = tmp_path / "space"
    for name in space.files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(space.read(name))
    port = free_port()
    environment = hub.environment() | {"GRADIO_SERVER_PORT": str(port), "TMPDIR": str(tmp_path / "temporary")}
    environment.pop("PYTHONPATH", None)
    (tmp_path / "temporary").mkdir()
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=folder, env=environment, stdout=log, stderr=log, text=True
        )
    try:
        wait_for(process, lambda: reachable(port))
        client = Client(f"http://127.0.0.1:{port}/", verbose=False, httpx_kwargs={"timeout": PATIENCE})
        picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8))
        picture.save(tmp_path / "a.png")
        made = np.asarray(Image.open(client.predict(handle_file(tmp_path / "a.png"), api_name="/translate")))
        np.testing.assert_array_equal(made, np.asarray(Pix2PixPipeline.from_pretrained(export)(picture)))
        page = client.predict(handle_file(tmp_path / "a.png"), handle_file(tmp_path / "a.png"), api_name="/compare")
        assert 0 < page[2]["realism"] < 1
        own = list((tmp_path / "temporary").glob("pix2pix_*"))
        assert len(own) == 1 and list(own[0].rglob("*.png"))
    finally:
        process.terminate()
        process.wait(PATIENCE)
    assert not list((tmp_path / "temporary").glob("pix2pix_*")), "uploads and results go with the process"
