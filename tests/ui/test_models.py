"""Which models are offered, which stay in memory, and what is said of those that cannot be used."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_exports import LABELS, write_tiny_export

from pix2pix_hub.export import SAMPLES_NAME
from pix2pix_hub.ui.handlers import Handlers
from pix2pix_hub.ui.models import SHIPPED, SHIPPED_DRAWING, choose_models
from pix2pix_hub.ui.serve import AppOptions, serve
from pix2pix_hub.ui.store import Deadline, Limits, ModelStore
from pix2pix_hub.util import UserError

LIMITS = Limits(max_models=2, max_seconds=30)
Use = Callable[[str], Any]  # name of a model → what stands for its pipeline


def made_export(folder: Path, age: int) -> Path:
    folder.mkdir(parents=True)
    for name in ("preprocessor_config.json", "config.json"):
        shutil.copyfile(SHIPPED / name, folder / name)
        os.utime(folder / name, (1e9 - age, 1e9 - age))
    return folder


def test_asked_models_come_before_runs_and_runs_before_the_shipped_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIX2PIX_MODEL", raising=False)
    runs = tmp_path / "runs"
    assert choose_models(None, runs) == {"demo": SHIPPED, "drawing": SHIPPED_DRAWING}
    made_export(runs / "older" / "model", 200)
    newest = made_export(runs / "newer" / "model", 100)
    made_export(runs / "newer" / "model_best", 100)
    assert choose_models(None, runs) == {"newer": newest}
    monkeypatch.setenv("PIX2PIX_MODEL", f"user/maps, {runs / 'older'}")
    assert choose_models(None, runs) == {"user/maps": "user/maps", "older": runs / "older" / "model"}
    assert choose_models("user/shoes", runs) == {"user/shoes": "user/shoes"}
    assert choose_models("drawing,demo", runs) == {"drawing": SHIPPED_DRAWING, "demo": SHIPPED}
    other = made_export(tmp_path / "other" / "newer" / "model", 0)  # two of one name, of which none says where it lies
    assert choose_models(f"{newest},{other}") == {"newer": newest, "newer (2)": other}
    monkeypatch.chdir(tmp_path)
    for place in ("no/such/folder", "nothing", "user/", "http://x/y", "../nothing"):
        with pytest.raises(UserError, match="neither a folder nor a repository id"):
            choose_models(place)


@pytest.fixture
def loaded() -> list[str]:
    """The models that were loaded, in this order."""
    return []


@pytest.fixture
def use(loaded: list[str]) -> Use:
    def load(location: Any) -> Any:
        loaded.append(str(location))
        return object()

    store = ModelStore({name: name for name in ("a/a", "b/b", "c/c")}, LIMITS, load=load)

    def used(name: str) -> Any:
        with store.use(name, Deadline(LIMITS)) as pipeline:
            return pipeline

    return used


def test_the_model_not_used_for_longest_leaves(use: Use, loaded: list[str]) -> None:
    first = use("a/a")
    use("b/b")
    assert use("a/a") is first
    use("c/c")  # b leaves
    assert use("a/a") is first
    use("b/b")
    assert loaded == ["a/a", "b/b", "c/c", "b/b"]


def test_many_threads_never_load_a_model_twice(use: Use, loaded: list[str]) -> None:
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(use, ["a/a", "b/b"] * 8))
    assert sorted(loaded) == ["a/a", "b/b"]


def test_a_model_that_cannot_be_loaded_says_why_without_its_place_and_leaves_the_others(tmp_path: Path) -> None:
    good, bad = write_tiny_export(tmp_path / "good"), write_tiny_export(tmp_path / "secret place" / "bad")
    (bad / "model.safetensors").write_bytes(b"no weights")
    (tmp_path / "empty").mkdir()
    store = ModelStore({"good": good, "bad": bad, "empty": tmp_path / "empty"}, LIMITS)
    for _ in range(2):
        with (
            pytest.raises(UserError, match="the model bad cannot be used: ") as caught,
            store.use("bad", Deadline(LIMITS)),
        ):
            pass
        assert "secret place" not in str(caught.value)
    with store.use("good", Deadline(LIMITS)) as pipeline:
        assert pipeline.folder == good
    with pytest.raises(UserError, match="the model empty has no preprocessor_config.json"):
        store.info("empty")
    with pytest.raises(UserError, match="the model empty has no preprocessor_config.json"):  # nothing is served
        serve(AppOptions(model=str(tmp_path / "empty")))


def test_only_offered_models_are_reached_unless_any_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Any] = []
    offered = ModelStore({"good/one": "good/one"}, LIMITS, load=loaded.append)
    assert offered.check("") == offered.check(None) == "good/one"
    for name in ("other/one", "../damaged", "/etc", "good/one/../one", "x" * 5000):
        with pytest.raises(UserError, match="not offered here; choose one of: good/one"):
            offered.check(name)
    anything = ModelStore({"good/one": "good/one"}, LIMITS, allow_any=True, load=loaded.append)
    with anything.use("other/one", Deadline(LIMITS)):
        pass
    assert loaded == ["other/one"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "looks" / "like").mkdir(parents=True)
    for name in ("looks/like", "/etc/passwd", "..", "a/b/c", "https://x/y", "looks"):
        with pytest.raises(UserError, match="is no repository id"):
            anything.check(name)


def test_a_busy_model_is_not_waited_for_for_ever() -> None:
    short = Limits(max_seconds=1)
    store = ModelStore({"a/a": "a/a"}, short, load=lambda location: object())  # type: ignore[arg-type, return-value]
    deadline = Deadline(short)
    with store.use("a/a", deadline):
        deadline._end = 0.0
        with pytest.raises(UserError, match="was busy for 1 second:"), store.use("a/a", deadline):
            pass


def test_an_example_of_classes_is_uploaded_as_the_model_takes_it(tmp_path: Path) -> None:
    folder, values = write_tiny_export(tmp_path / "classes", LABELS), np.array(LABELS.classes, np.uint8)
    classes = np.random.default_rng(0).integers(0, len(values), (32, 32))
    drawn = np.pad(np.array(LABELS.colors, np.uint8)[classes], ((2, 2), (2, 70), (0, 0)))  # a row of samples.png
    Image.fromarray(drawn).save(folder / SAMPLES_NAME)
    handlers = Handlers(ModelStore({"classes": folder}, LIMITS), tmp_path / "results")
    stored, _ = handlers.example(0, None)
    stored.picture().save(tmp_path / "example.png")
    made, _, _ = handlers.translate(tmp_path / "example.png", None)
    with handlers.store.use(None, Deadline(LIMITS)) as pipeline:
        wanted = pipeline(values[classes])
    np.testing.assert_array_equal(np.asarray(Image.open(made)), np.asarray(wanted))
    with pytest.raises(UserError, match="no example 1: the model has 1"):
        handlers.example(1, None)
