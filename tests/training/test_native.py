"""`--resize native`: training on crops of pairs of any size that are never resized."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_results import Tiny, same, train, weights

from pix2pix_hub import Pix2PixPipeline
from pix2pix_hub.cli import main
from pix2pix_hub.data.cache import DevicePairs
from pix2pix_hub.hub.card import make_card
from pix2pix_hub.training.trainer import Pix2PixTrainer
from pix2pix_hub.util import UserError

SIZES = [(40, 90), (100, 33), (32, 32), (64, 64), (70, 48), (33, 200)]  # height, width


def write_pairs(root: Path, sizes: list[tuple[int, int]]) -> Path:
    """Folders of A and B, with smooth colours and some noise."""
    for number, (height, width) in enumerate(sizes):
        noise = np.random.default_rng(number).integers(0, 60, (height, width, 3))
        image = (np.linspace(0, 190, width)[None, :, None] + noise).astype(np.uint8)
        for split in ("train", "val"):
            for side, values in (("A", image), ("B", 255 - image)):
                (root / split / side).mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(root / split / side / f"{number}.png")
    return root


def test_a_run_is_the_same_with_and_without_workers_and_cache_and_taken_up_anywhere(tiny: Tiny, tmp_path: Path) -> None:
    options = dict(dataset=str(write_pairs(tmp_path / "pairs", SIZES)), resize="native", checkpoint_every=2)
    trainer = Pix2PixTrainer(tiny(**options, keep_checkpoints=9))
    assert "crops of 32x32 from 6 sizes from 32x32 to 33x200" in trainer.describe()
    assert trainer.cache.plan.mode == "memory"  # what is kept are whole pairs
    run = trainer.train().run_folder
    assert DevicePairs.where_they_fit(trainer.train_loader.dataset, trainer.accelerator.device) is None
    assert not trainer.train_loader.dataset.transform.only_crops
    (tmp_path / "stopped").mkdir()
    shutil.copytree(run, tmp_path / "stopped" / "run")
    for name in ("checkpoints/checkpoint_6", "checkpoints/checkpoint_4", "model", "model_best"):
        shutil.rmtree(tmp_path / "stopped" / "run" / name)
    for place, changed in (
        ("stopped", {"resume": True}),
        ("workers", {"cache": "off", "num_workers": 2}),
    ):
        again = train(tiny(**options | changed, output_dir=str(tmp_path / place / "run"), keep_checkpoints=9))
        assert same(weights(again.run_folder), weights(run)), place
    assert not same(
        weights(train(tiny(**options | {"seed": 1, "output_dir": str(tmp_path / "other")})).run_folder), weights(run)
    )


def test_a_model_of_native_crops_says_so_and_keeps_every_size(tiny: Tiny, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs", SIZES)
    export = train(tiny(dataset=str(pairs), resize="native", epochs=1)).run_folder / "model"
    assert json.loads((export / "preprocessor_config.json").read_text())["resize"] == "native"
    assert "trained on crops of 32x32" in make_card(export, "user/model")
    image = Image.open(pairs / "train" / "A" / "5.png")
    assert Pix2PixPipeline.from_pretrained(export)(image, tile_size=64).size == (200, 33)
    measured = tmp_path / "measured"
    command = ["evaluate", str(export), str(pairs), "--metrics", "l1", "--no-checks", "--output", str(measured)]
    assert main([*command, "--cpu-threads", "1"]) == 0
    assert main([*command, "--cpu-threads", "1", "--image-size", "40", "--on-bad-pair", "skip"]) == 0


@pytest.mark.parametrize("on_bad_pair", ["stop", "skip"])
def test_a_pair_smaller_than_the_crops_is_named_before_training(on_bad_pair: str, tiny: Tiny, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path / "pairs", [*SIZES, (31, 90), (90, 20)])
    config = tiny(dataset=str(pairs), resize="native", on_bad_pair=on_bad_pair, max_train_pairs=None)
    if on_bad_pair == "skip":
        assert len(Pix2PixTrainer(config).pairs.train) == len(SIZES)
    else:
        words = r"train/A/6.png: its images are 31x90 .* crops of 32x32 .*smaller --image-size(.|\n)*7.png"
        with pytest.raises(UserError, match=words):
            Pix2PixTrainer(config)


def test_a_stream_takes_native_crops_and_names_a_pair_that_is_too_small(
    tiny: Tiny, tmp_path: Path, datasets_cache: Path
) -> None:
    pairs = write_pairs(tmp_path / "pairs", [*SIZES, *SIZES, (31, 90)])  # which is none of the first that are looked at
    assert main(["data", "build", str(pairs), "--output", str(tmp_path / "set")]) == 0
    options = dict(dataset=str(tmp_path / "set"), streaming=True, resize="native", max_train_pairs=None, epochs=1)
    with pytest.raises(UserError, match="row 12 of shard 0 of split train.*31x90"):
        train(tiny(**options))
    skipping = train(tiny(**options, on_bad_pair="skip", output_dir=str(tmp_path / "skipping")))
    assert "31x90" in (skipping.run_folder / "bad_pairs.jsonl").read_text()


def test_training_on_rasters_is_the_same_with_workers_and_tells_no_folder(
    tiny: Tiny, tmp_path: Path, datasets_cache: Path
) -> None:
    rasterio = pytest.importorskip("rasterio", reason="the extra geo is not installed")
    for name, origin in (("a", 500_000), ("b", 499_990)):  # of two grids
        values = np.random.default_rng(0).integers(1, 250, (3, 150, 170)).astype(np.uint8)
        place = {"crs": "EPSG:32632", "transform": rasterio.transform.from_origin(origin, 5_400_000, 2, 2)}
        size = {"count": 3, "height": 150, "width": 170, "dtype": "uint8"}
        with rasterio.open(tmp_path / f"{name}.tif", "w", driver="GTiff", **size, **place) as raster:
            raster.write(values)
    rasters, runs = f"{tmp_path / 'a.tif'},{tmp_path / 'b.tif'}", []
    for cache, workers in (("off", 0), ("disk", 2)):
        options = dict(dataset=rasters, cache=cache, num_workers=workers, output_dir=str(tmp_path / cache))
        runs.append(train(tiny(**options), command=f"train.py --dataset {rasters}").run_folder)
    assert same(weights(runs[0]), weights(runs[1]))
    assert json.loads((runs[0] / "model" / "preprocessor_config.json").read_text())["resize"] == "native"
    recorded = json.loads((runs[0] / "model" / "training_config.json").read_text())
    assert str(tmp_path) not in json.dumps(recorded)
    assert recorded["dataset"]["id"] == recorded["options"]["dataset"] == "a.tif,b.tif"
    assert recorded["command"].endswith("--dataset path/to/a.tif,path/to/b.tif")
    command = ["evaluate", str(runs[0]), rasters, "--metrics", "l1", "--no-checks", "--cpu-threads", "1"]
    assert main([*command, "--output", str(tmp_path / "measured")]) == 0
    assert main(["data", "inspect", rasters, "--image-size", "32", "--grid", str(tmp_path / "grid.png")]) == 0
