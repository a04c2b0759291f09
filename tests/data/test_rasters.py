"""Rasters with coordinates: cut into pairs of tiles on one grid, and translated to rasters of the same place."""

import math
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Image, load_dataset
from tiny_exports import GRAY, write_tiny_export

from pix2pix_hub import Pix2PixPipeline
from pix2pix_hub.cli import main
from pix2pix_hub.config import PairOptions, TileOptions, preset_config
from pix2pix_hub.data.pairs import find_pairs
from pix2pix_hub.data.rasters import opened, plan_tiles, resampling_of
from pix2pix_hub.data.tile import tile_rasters
from pix2pix_hub.image.format import PixelFormat
from pix2pix_hub.image.raster import bands_of
from pix2pix_hub.image.read import read_image
from pix2pix_hub.inference.raster import translate_raster
from pix2pix_hub.inference.tiling import partitions_of
from pix2pix_hub.util import UserError

rasterio = pytest.importorskip("rasterio", reason="the extra geo is not installed")
from rasterio.transform import Affine, from_origin  # noqa: E402
from rasterio.warp import transform, transform_bounds  # noqa: E402

UTM, LONGITUDE_LATITUDE = "EPSG:32632", "EPSG:4326"
WEST, NORTH, PIXEL = 500_000.0, 5_400_000.0, 2.0  # metres
HEIGHT, WIDTH = 450, 500


def write(file: Path, values: Any, crs: str | None, place: Affine, **profile: Any) -> Path:
    bands, height, width = values.shape
    size = {"count": bands, "height": height, "width": width, "dtype": values.dtype}
    with rasterio.open(file, "w", driver="GTiff", crs=crs, transform=place, **size, **profile) as raster:
        raster.write(values)
    return file


def spoil(file: Path) -> None:
    """Damage one block in the midst of a file."""
    with rasterio.open(file) as raster:
        offset, length = (int(raster.get_tag_item(f"BLOCK_{name}_1_1", "TIFF", bidx=1)) for name in ("OFFSET", "SIZE"))
    content = bytearray(file.read_bytes())
    content[offset : offset + length] = bytes(length)
    file.write_bytes(content)


def landmarks(east: Any, north: Any) -> Any:
    """A hill of 0 to 1 every 80 metres."""
    across, down = ((distance + 40) % 80 - 40 for distance in (east - WEST, NORTH - north))
    return np.exp(-(across**2 + down**2) / 128)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.tif: 4 bands of 16 bits in metres. b.tif: RGB in degrees, on a grid of its own, with a hole of no data."""
    place = tmp_path_factory.mktemp("rasters")
    grid = from_origin(WEST, NORTH, PIXEL, PIXEL)
    columns, rows = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    hills = landmarks(WEST + PIXEL * columns, NORTH - PIXEL * rows)
    bands = np.stack([200 + hills * high for high in (10_000, 8_000, 6_000, 4_000)]).astype(np.uint16)
    write(place / "a.tif", bands, UTM, grid, tiled=True, blockxsize=128, blockysize=128, compress="lzw")
    west, south, east, north = transform_bounds(
        UTM, LONGITUDE_LATITUDE, WEST + 50, NORTH - PIXEL * HEIGHT, WEST + PIXEL * WIDTH + 100, NORTH + 50
    )
    step = 1.7e-5
    columns, rows = np.meshgrid(np.arange((east - west) / step) + 0.5, np.arange((north - south) / step) + 0.5)
    x, y = transform(LONGITUDE_LATITUDE, UTM, (west + step * columns).ravel(), (north - step * rows).ravel())
    hills = landmarks(np.array(x).reshape(rows.shape), np.array(y).reshape(rows.shape))
    colors = np.stack([1 + hills * high for high in (250, 200, 150)]).round().astype(np.uint8)
    colors[:, 100:180, 200:300] = 0
    write(place / "b.tif", colors, LONGITUDE_LATITUDE, from_origin(west, north, step, step), nodata=0)
    return place


def rows_of(pairs: Path) -> dict[str, list[tuple[str, Any, Any]]]:
    """Split → name, source and target of each pair."""
    found = {}
    for split in ("train", "validation"):
        table = load_dataset("parquet", data_files=str(pairs / "data" / f"{split}-*"), split="train")
        for side in ("source", "target"):
            table = table.cast_column(side, Image(decode=False))
        found[split] = [
            (row["source"]["path"], *(read_image(row[side]["bytes"], side).values for side in ("source", "target")))
            for row in table
        ]
    return found


def test_tiles_of_two_grids_lie_on_each_other_and_no_pixel_trains_and_validates(folder: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs"
    command = ["data", "tile", str(folder / "a.tif"), str(folder / "b.tif"), "--size", "64", "--output", str(pairs)]
    assert main(command) == 0
    rows = rows_of(pairs)
    seen = {}
    for split, members in rows.items():
        covered = np.zeros((HEIGHT, WIDTH), bool)
        for name, source, target in members:
            row, column = map(int, name.removesuffix(".tif").split("_")[1:])
            covered[row : row + 64, column : column + 64] = True
            with rasterio.open(folder / "a.tif") as raster:
                whole = np.moveaxis(raster.read(window=((row, row + 64), (column, column + 64))), 0, -1)
            assert source.dtype == np.uint16 and np.array_equal(source, whole)  # bands and depth as they are
            expected = 1 + (source[:, :, 0] - 200.0) / 10_000 * 250
            there = target[:, :, 0] > 0
            assert there.mean() >= 0.9  # --max-nodata 0.1
            # half a pixel beside it the hills, of a slope of up to 20 levels a pixel, would be 4 levels off on average
            assert np.abs(expected - target[:, :, 0])[there].mean() < 1
        seen[split] = covered
    assert seen["train"].any() and seen["validation"].any() and not (seen["train"] & seen["validation"]).any()
    card = (pairs / "README.md").read_text()
    assert "`source` of a.tif" in card.replace("\n", " ") and "without data" in card
    assert main(command) == 0  # all is there
    assert main([*command, "--seed", "1"]) == 2  # other pairs are there


def test_overlapping_tiles_across_the_border_are_left_out(folder: Path) -> None:
    options = TileOptions(size=64, stride=32, validation=0.2)
    tiling = plan_tiles([(folder / "a.tif", folder / "a.tif")], options)
    covered = {}
    for split, tiles in tiling.splits.items():
        covered[split] = np.zeros((HEIGHT, WIDTH), bool)
        for _, row, column in tiles:
            covered[split][row : row + 64, column : column + 64] = True
    assert not (covered["train"] & covered["validation"]).any() and tiling.straddling > 0
    assert (covered["train"] | covered["validation"])[[0, -1], :].any(1).all(), "the rim is not left out"
    positions = (math.ceil((HEIGHT - 64) / 32) + 1) * (math.ceil((WIDTH - 64) / 32) + 1)
    assert sum(map(len, tiling.splits.values())) + tiling.straddling + tiling.empty == positions
    assert 0.2 <= len(tiling.splits["validation"]) / positions < 0.3


def test_how_to_resample_follows_from_what_a_raster_holds(folder: Path, tmp_path: Path) -> None:
    first = folder / "a.tif"
    noise = np.random.default_rng(0).integers(0, 256, (1, HEIGHT, WIDTH)).astype(np.uint8)
    for name, values, step, expected in (
        ("classes", noise % 7, 3.0, "nearest"),
        ("coarse", noise, 5.0, "bilinear"),
        ("fine", noise, 1.0, "average"),
        ("same", noise, PIXEL, None),
    ):
        second = write(tmp_path / f"{name}.tif", values, UTM, from_origin(WEST, NORTH, step, step))
        assert resampling_of((first, second), "auto") == expected


def test_a_tiling_that_was_stopped_goes_on_and_is_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs, options = [(folder / "a.tif", folder / "b.tif")], TileOptions(size=32)
    monkeypatch.setattr("pix2pix_hub.data.tile.ROWS_PER_FILE", 40)
    tile_rasters(pairs, options, tmp_path / "whole")

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tile_rasters(pairs, options, tmp_path / "stopped", stop)
    assert not (tmp_path / "stopped").exists()
    tile_rasters(pairs, options, tmp_path / "stopped")
    both = [
        {path.relative_to(place): path.read_bytes() for path in place.rglob("*.parquet")}
        for place in (tmp_path / "whole", tmp_path / "stopped")
    ]
    assert both[0] == both[1] and len(both[0]) > 2


def test_a_disk_that_is_full_is_told_while_tiles_are_written(folder: Path, tmp_path: Path) -> None:
    """Files of up to 100,000 bytes; with more room the same call goes on."""
    pairs, options, before = (
        [(folder / "a.tif", folder / "b.tif")],
        TileOptions(size=64),
        resource.getrlimit(resource.RLIMIT_FSIZE),
    )
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        with pytest.raises(UserError, match=r"out could not be written .* the same command goes on"):
            tile_rasters(pairs, options, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial"]
    tile_rasters(pairs, options, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("bare", "has no georeference"),
        ("rotated", "lies rotated on the ground"),
        ("elsewhere", "show different ground"),
        ("empty", "none has data in both rasters"),
        ("cut", "cannot be read as a GeoTIFF|is damaged at"),
        ("block", "is damaged at 128, 128"),
        ("block with nodata", "cannot be read as a GeoTIFF"),
        ("missing", "does not exist"),
        ("text", "cannot be read as a GeoTIFF"),
        ("small", "--size 64 .* needs as many"),
    ],
)
def test_rasters_that_cannot_be_tiled_are_told_and_nothing_is_written(
    folder: Path, tmp_path: Path, broken: str, words: str
) -> None:
    grid, values = from_origin(WEST, NORTH, PIXEL, PIXEL), np.full((1, HEIGHT, WIDTH), 7, np.uint8)
    files = [folder / "a.tif", tmp_path / f"{broken}.tif"]
    if broken == "bare":
        write(files[1], values, None, Affine.identity())
    elif broken == "rotated":
        write(files[1], values, UTM, grid @ Affine.rotation(20))
    elif broken == "elsewhere":
        write(files[1], values, UTM, from_origin(WEST + 50_000, NORTH, PIXEL, PIXEL))
    elif broken == "empty":
        write(files[1], values, UTM, grid, nodata=7)
    elif broken == "cut":
        content = (folder / "a.tif").read_bytes()
        files[0] = files[1]
        files[1].write_bytes(content[:200_000] if len(content) > 250_000 else content[: len(content) // 2])
    elif broken.startswith("block"):
        blocks = {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "deflate"}
        files[0] = write(files[1], values, UTM, grid, nodata=0 if broken.endswith("nodata") else None, **blocks)
        spoil(files[0])
    elif broken == "text":
        files[1].write_text("no raster")
    elif broken == "small":
        files[0] = write(files[1], values[:, :40], UTM, grid)
    with pytest.raises(UserError, match=words):
        tile_rasters([(files[0], files[1])], TileOptions(size=64), tmp_path / "pairs")
    assert not (tmp_path / "pairs").exists()


def test_rasters_of_other_units_and_numbers_of_bands_go_together(tmp_path: Path) -> None:
    """13 bands in metres and 1 in feet, of the same ground."""
    first = write(
        tmp_path / "a.tif", np.zeros((13, 200, 200), np.int16), "EPSG:32618", from_origin(580_000, 4.5e6, 2, 2)
    )
    west, south, east, north = transform_bounds("EPSG:32618", "EPSG:2263", 580_000, 4.5e6 - 400, 580_400, 4.5e6)
    grid = from_origin(west - 50, north + 50, 5, 5)
    across, down = int((east - west + 100) / 5), int((north - south + 100) / 5)
    second = write(tmp_path / "b.tif", np.ones((1, down, across), np.uint8), "EPSG:2263", grid)
    tile_rasters([(first, second)], TileOptions(size=40), tmp_path / "pairs")
    shapes = {(a.shape, b.shape) for rows in rows_of(tmp_path / "pairs").values() for _, a, b in rows}
    assert shapes == {((40, 40, 13), (40, 40, 1))}


def test_rasters_of_one_side_need_the_same_bands(folder: Path, tmp_path: Path) -> None:
    pairs = [(folder / "a.tif", folder / "b.tif"), (folder / "b.tif", folder / "b.tif")]
    with pytest.raises(UserError, match="need the same bands"):
        tile_rasters(pairs, TileOptions(size=64), tmp_path / "pairs")


# --- trained on as they are


def test_rows_of_rasters_are_windows_of_either_and_no_pixel_trains_and_validates(folder: Path) -> None:
    files = folder / "a.tif", folder / "b.tif"
    found = find_pairs(PairOptions(f"{files[0]},{files[1]}", image_size="32x48"))
    tiles = plan_tiles([files], TileOptions(size=48)).splits
    covered, sizes = {}, set()
    for split, rows in pickle.loads(pickle.dumps(found.splits)).items():
        covered[split] = np.zeros((HEIGHT, WIDTH), bool)
        for _, ((top, bottom), (left, right)) in rows.windows:
            covered[split][top:bottom, left:right] = True
            sizes.add((split, bottom - top, right - left))
        expected = np.zeros((HEIGHT, WIDTH), bool)
        for _, row, column in tiles[split]:
            expected[row : row + 48, column : column + 48] = True
        assert np.array_equal(covered[split], expected) and len(rows) == len(tiles[split])
    assert not (covered["train"] & covered["validation"]).any()
    assert {size for size in sizes if size[0] == "validation"} == {("validation", 48, 48)}
    assert {("train", 72, 96), ("train", 96, 72), ("train", 96, 96)} < sizes  # half a tile further to each side
    assert max(sizes) == ("validation", 48, 48) and max(size[1:] for size in sizes) == (96, 96)
    at_rim = {bottom - top for _, ((top, bottom), _) in found.splits["train"].windows if bottom == HEIGHT}
    assert at_rim <= {48, 48 + HEIGHT % 48, 72 + HEIGHT % 48} and len(at_rim) > 1, "the last tile overlaps another"
    with opened(files, resampling_of(files, "auto")) as rasters:
        for swap in (False, True):
            pairs = found.pairs("train", swap)
            _, ((top, bottom), (left, right)) = pairs.rows.windows[20]
            wholes = [raster.read(bands_of(raster)) for raster in rasters]
            for image, whole in zip(pairs.read(20), wholes[::-1] if swap else wholes, strict=True):
                assert np.array_equal(np.moveaxis(image.values, -1, 0), whole[:, top:bottom, left:right])
    assert found.pairs("train", False).name(0) == f"{files[0]} at 0, 48 (row, column)"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dataset": "a.tif,b.tif,c.tif"}, "3 rasters: name them two by two"),
        ({"resize": "pad"}, "--resize pad: rasters are trained on as they are"),
        ({"streaming": True}, "--streaming is for shards"),
        ({"source_column": "A", "target_column": "B"}, "rasters have none to choose"),
        ({"image_size": "512"}, "--size 512 .in training --image-size. needs as many"),
        ({"dataset": "nowhere.tif,b.tif"}, "nowhere.tif does not exist"),
    ],
)
def test_rasters_that_cannot_be_trained_on_are_told(folder: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        find_pairs(preset_config("demo", **{"dataset": f"{folder / 'a.tif'},{folder / 'b.tif'}"} | options))


# --- translated


IDENTITY = """
import pix2pix_hub.inference.pipeline as pipeline
from pix2pix_hub.inference.tiling import Partition
pipeline.partition_for = lambda generator, height, width: Partition(1, 0, (), lambda inner, source: source)
"""


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every generator gives its source back."""
    from pix2pix_hub.inference.tiling import Partition

    given_back = Partition(1, 0, (), lambda inner, source: source)
    monkeypatch.setattr("pix2pix_hub.inference.pipeline.partition_for", lambda generator, height, width: given_back)


@pytest.mark.usefixtures("identity")
@pytest.mark.parametrize("cog", [False, True])
@pytest.mark.parametrize("kind", ["nodata", "mask", "floats", "a.tif", "b.tif"])
def test_a_generator_that_changes_nothing_gives_back_the_raster(
    folder: Path, tmp_path: Path, kind: str, cog: bool
) -> None:
    """Bit for bit; floats, which are scaled to [-1, 1] and back, but for rounding. Of two grids, 1 to 4 bands."""
    source = tmp_path / "source.tif"
    if kind.endswith(".tif"):
        shutil.copy(folder / kind, source)
    else:
        values = np.random.default_rng(0).integers(1, 200, (1, 300, 600)).astype("f4" if kind == "floats" else "u1")
        nodata = {"nodata": 0, "floats": -9999.0}.get(kind)
        values[:, 100:150, 200:] = nodata or 0
        write(source, values, UTM, from_origin(WEST, NORTH, PIXEL, PIXEL), nodata=nodata, compress="deflate")
    if kind == "mask":
        with rasterio.open(source, "r+") as raster:
            raster.write_mask(values[0] > 0)
    with rasterio.open(source) as raster:
        mode, high = {3: "rgb", 4: "channels"}.get(raster.count, "gray"), 65535.0 if kind == "a.tif" else 255.0
        form = PixelFormat(mode, raster.count, raster.dtypes[0], 0.0, high)
    export = write_tiny_export(tmp_path / "model", source=form, target=form)
    command = ["translate", str(export), str(source), "--output", str(tmp_path / "out"), "--tile-size", "128"]
    assert main([*command, "--dtype", "float32", *(["--cog"] if cog else [])]) == 0
    with rasterio.open(source) as before, rasterio.open(tmp_path / "out" / "source.tif") as after:
        for name in ("crs", "transform", "shape", "nodata", "dtypes", "count"):
            assert getattr(after, name) == getattr(before, name), name
        assert np.array_equal(after.dataset_mask(), before.dataset_mask())
        valid = before.dataset_mask() > 0
        tolerance = 1e-4 if kind == "floats" else 0  # rounding on the way to [-1, 1] and back
        assert np.abs(after.read()[:, valid] - before.read()[:, valid].astype(float)).max() <= tolerance
        if before.nodata is not None:
            assert np.array_equal(after.read()[:, ~valid], before.read()[:, ~valid])
        assert after.compression == before.compression or (cog and before.compression is None)
        assert cog or after.block_shapes == before.block_shapes
        assert (after.overviews(1) != []) == (cog and max(before.shape) > 512)


def test_tiles_of_a_raster_are_those_of_the_image(tmp_path: Path) -> None:
    """Written through windows, in several tiles, it is what the pipeline makes of the array."""
    values = np.random.default_rng(0).integers(0, 256, (3, 150, 170)).astype(np.uint8)
    source = write(tmp_path / "source.tif", values, UTM, from_origin(WEST, NORTH, PIXEL, PIXEL))
    export = write_tiny_export(tmp_path / "model")
    command = ["translate", str(export), str(source), "--output", str(tmp_path / "out"), "--tile-size", "64"]
    assert main([*command, "--dtype", "float32"]) == 0
    pipe = Pix2PixPipeline.from_pretrained(export, device="cpu", dtype="float32")
    expected = pipe(np.moveaxis(values, 0, -1), tile_size=64)
    with rasterio.open(tmp_path / "out" / "source.tif") as made:
        assert np.array_equal(np.moveaxis(made.read(), 0, -1), expected)


KEEPING = """
import pix2pix_hub.inference.pipeline as pipeline, pix2pix_hub.inference.raster as raster
from pix2pix_hub.inference.tiling import partitions_of
pipeline.partition_for = lambda generator, height, width: [*partitions_of(generator)][-1]
raster.KEEP_SECONDS = raster.KEEP_RATIO = 0.0
"""
KILLED = """
import os, signal, sys
from pathlib import Path
from pix2pix_hub import Pix2PixPipeline
pipe = Pix2PixPipeline.from_pretrained(sys.argv[1], device="cpu", dtype="float32")
kill = lambda done, total: os.kill(os.getpid(), signal.SIGKILL) if done == int(sys.argv[4]) else None
raster.translate_raster(pipe, Path(sys.argv[2]), {0: Path(sys.argv[3])}, tile_size=64, progress=kill)
"""


def test_a_translation_that_was_stopped_goes_on_and_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Stopped in every pass: over norm layers, before and after the inner map, and before it is compressed."""
    values = np.random.default_rng(0).integers(0, 256, (3, 100, 90)).astype(np.uint8)
    source = write(tmp_path / "source.tif", values, UTM, from_origin(WEST, NORTH, PIXEL, PIXEL))
    with rasterio.open(source, "r+") as raster:
        raster.write_mask(values[0] > 9)
    export = write_tiny_export(tmp_path / "model")
    pipe = Pix2PixPipeline.from_pretrained(export, device="cpu", dtype="float32")
    deepest = [*partitions_of(pipe.generator)][-1]
    monkeypatch.setattr("pix2pix_hub.inference.pipeline.partition_for", lambda generator, height, width: deepest)
    for name in ("KEEP_SECONDS", "KEEP_RATIO"):
        monkeypatch.setattr(f"pix2pix_hub.inference.raster.{name}", 0.0)
    assert len(deepest.norms) > 1 and deepest.head is not None
    whole, output, totals = tmp_path / "whole.tif", tmp_path / "stopped.tif", []

    def translate(output: Path, stop_at: int | None, seed: int | None, stochastic: bool = False) -> list[int]:
        steps = []

        def progress(done: int, total: int) -> None:
            steps.append(done)
            totals.append(total)
            if done == stop_at:
                raise KeyboardInterrupt

        how = {"tile_size": 64, "stochastic": stochastic or seed is not None, "seed": seed, "progress": progress}
        with pytest.raises(KeyboardInterrupt) if stop_at else nullcontext():
            translate_raster(pipe, source, {0: output}, **how)
        return steps

    def check_it_goes_on(at: int, seed: int | None) -> None:
        assert not output.exists() and len(list(tmp_path.glob("stopped.tif.*"))) == 2
        assert translate(output, None, seed)[0] == at
        assert output.read_bytes() == whole.read_bytes(), at
        assert not list(tmp_path.glob("stopped.tif.*"))
        output.unlink()

    translate(whole, None, None)
    for stop_at in (*range(1, totals[0], 3), totals[0]):
        translate(output, stop_at, None)
        check_it_goes_on(stop_at, None)
    killed = [sys.executable, "-c", KEEPING + KILLED, str(export), str(source), str(output), str(totals[0] - 1)]
    assert subprocess.run(killed).returncode == -signal.SIGKILL
    check_it_goes_on(totals[0] - 1, None)
    translate(whole, None, 3)
    translate(output, totals[0] - 1, 3)
    check_it_goes_on(totals[0] - 1, 3)
    translate(output, 5, 3)
    assert "stopped.tif is unfinished: the same command goes on" in caplog.text
    assert "begun again" not in caplog.text
    assert translate(output, None, 4)[0] == 1  # another dropout
    assert "stopped.tif was begun with another model, raster or options: begun again." in caplog.text
    output.unlink()
    translate(output, 5, None, stochastic=True)  # with any seed, which is told by the result
    assert translate(output, None, None, stochastic=True)[0] == 5
    with rasterio.open(output) as made:
        seed = int(made.tags()["PIX2PIX_SEED"])
    translate(whole, None, seed)
    assert output.read_bytes() == whole.read_bytes() and seed not in (3, 4)


@pytest.mark.parametrize("limit", [1000, 100_000, 196_000, 198_000, 215_000, 260_000])
@pytest.mark.usefixtures("identity")
def test_a_disk_that_is_full_is_told_and_nothing_is_left(
    tmp_path: Path, limit: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Too small for the pixels, 196,608 bytes, for their compressed copy, or just for its overviews."""
    values = np.random.default_rng(0).integers(0, 256, (3, 256, 256)).astype(np.uint8)
    source = write(tmp_path / "source.tif", values, UTM, from_origin(WEST, NORTH, PIXEL, PIXEL), compress="lzw")
    export = write_tiny_export(tmp_path / "model")
    command = ["translate", str(export), str(source), "--output", str(tmp_path / "out"), "--cog", "--device", "cpu"]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))  # of each file
        assert main(command) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "source.tif could not be written" in " ".join(capsys.readouterr().out.split())
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.usefixtures("identity")
@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("rotated", "lies rotated on the ground"),
        ("no grid", "has no georeference"),
        ("bands", "8-bit 13-channel, where 8-bit gray is expected"),
        ("block", "is damaged at"),
        ("only nodata", None),
        ("feet", None),
    ],
)
def test_rasters_that_cannot_be_translated_are_told_and_nothing_is_written(
    tmp_path: Path, broken: str, words: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    grid, values = from_origin(WEST, NORTH, PIXEL, PIXEL), np.random.default_rng(0).integers(1, 256, (1, 300, 300))
    values = np.repeat(values, 13 if broken == "bands" else 1, axis=0).astype(np.uint8)
    source, nodata = tmp_path / "source.tif", 7 if broken == "only nodata" else None
    grid = {"rotated": grid @ Affine.rotation(20), "no grid": Affine.identity()}.get(broken, grid)
    values = np.full_like(values, 7) if nodata else values
    blocks = {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "deflate"}
    write(source, values, "EPSG:2263" if broken == "feet" else UTM, grid, nodata=nodata, **blocks)
    if broken == "block":
        spoil(source)
    export = write_tiny_export(tmp_path / "model", GRAY, GRAY)
    status = main(["translate", str(export), str(source), "--output", str(tmp_path / "out"), "--tile-size", "128"])
    told = " ".join(capsys.readouterr().out.split())
    if words is None:
        with rasterio.open(source) as before, rasterio.open(tmp_path / "out" / "source.tif") as after:
            assert status == 0 and (after.crs, after.nodata) == (before.crs, before.nodata)
            assert np.array_equal(after.read(), before.read())
    else:
        assert status == 1 and str(source) in told and words in told, told
        assert not list((tmp_path / "out").glob("*"))


def test_without_the_extra_a_raster_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = np.zeros((3, 64, 64), np.uint8)
    source = write(tmp_path / "source.tif", values, UTM, from_origin(WEST, NORTH, PIXEL, PIXEL))
    export = write_tiny_export(tmp_path / "model")
    monkeypatch.setitem(sys.modules, "rasterio", None)
    assert main(["translate", str(export), str(source), "--output", str(tmp_path / "out")]) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "read and written by rasterio: pip install" in told and not list((tmp_path / "out").glob("*"))


MEASURED = """
import sys
from pathlib import Path
from pix2pix_hub import Pix2PixPipeline
from pix2pix_hub.inference.raster import translate_raster
pipe = Pix2PixPipeline.from_pretrained(sys.argv[1], device="cpu", dtype="float32")
translate_raster(pipe, Path(sys.argv[2]), {0: Path(sys.argv[3])}, tile_size=512)
print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])
"""


def test_memory_does_not_follow_from_the_area(tmp_path: Path) -> None:
    export, peaks = write_tiny_export(tmp_path / "model", GRAY, GRAY), []
    for side in (1000, 4000):
        band = np.random.default_rng(0).integers(0, 256, (1, side, side)).astype(np.uint8)
        source = write(tmp_path / f"{side}.tif", band, UTM, from_origin(WEST, NORTH, PIXEL, PIXEL), tiled=True)
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", IDENTITY + MEASURED, str(export), str(source), str(tmp_path / f"made{side}.tif")],
            env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        peaks.append(int(done.stdout))
    assert peaks[1] < 1.2 * peaks[0]
