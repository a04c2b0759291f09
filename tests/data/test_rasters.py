"""Rasters with coordinates: cut into pairs of tiles on one grid, and translated to rasters of the same place."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Image, load_dataset
from tiny_exports import GRAY, write_tiny_export

from pix2pix_hub.cli import main
from pix2pix_hub.config import PairOptions, TileOptions, preset_config
from pix2pix_hub.data.pairs import find_pairs
from pix2pix_hub.data.rasters import opened, plan_tiles, resampling_of
from pix2pix_hub.data.tile import tile_rasters
from pix2pix_hub.image.format import PixelFormat
from pix2pix_hub.image.raster import bands_of
from pix2pix_hub.image.read import read_image
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
    positions = ((HEIGHT - 64) // 32 + 1) * ((WIDTH - 64) // 32 + 1)
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


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("bare", "has no georeference"),
        ("rotated", "lies rotated on the ground"),
        ("elsewhere", "show different ground"),
        ("empty", "none has data in both rasters"),
        ("cut", "cannot be read as a GeoTIFF|is damaged at"),
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
    elif broken == "text":
        files[1].write_text("no raster")
    elif broken == "small":
        files[0] = write(files[1], values[:, :40], UTM, grid)
    with pytest.raises(UserError, match=words):
        tile_rasters([(files[0], files[1])], TileOptions(size=64), tmp_path / "pairs")
    assert not (tmp_path / "pairs").exists()


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
    assert {("train", 48 + 24 * down, 48 + 24 * across) for down in range(3) for across in range(3)} >= sizes - {
        ("validation", 48, 48)
    }
    assert ("train", 96, 96) in sizes  # half a tile further to each side
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
@pytest.mark.parametrize("kind", ["nodata", "mask", "floats", "wide"])
def test_a_generator_that_changes_nothing_gives_back_the_raster(tmp_path: Path, kind: str, cog: bool) -> None:
    random = np.random.default_rng(0)
    grid = from_origin(WEST, NORTH, PIXEL, PIXEL)
    dtype = {"floats": "float32", "wide": "uint16"}.get(kind, "uint8")
    values = random.integers(1, 200, (4 if kind == "wide" else 1, 300, 600)).astype(dtype)
    nodata = {"nodata": 0, "floats": -9999.0, "wide": None}.get(kind)
    values[:, 100:150, 200:] = nodata or 0
    source = write(tmp_path / "source.tif", values, UTM, grid, nodata=nodata, compress="deflate")
    if kind == "mask":
        with rasterio.open(source, "r+") as raster:
            raster.write_mask(values[0] > 0)
    form = PixelFormat(
        "channels" if kind == "wide" else "gray", len(values), dtype, 0.0, 65535.0 if kind == "wide" else 255.0
    )
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
        assert after.compression == before.compression
        assert (after.overviews(1) != []) == cog


def test_tiles_of_a_raster_are_those_of_the_image(tmp_path: Path) -> None:
    """Written through windows, in several tiles, it is what the pipeline makes of the array."""
    from pix2pix_hub import Pix2PixPipeline

    values = np.random.default_rng(0).integers(0, 256, (3, 150, 170)).astype(np.uint8)
    source = write(tmp_path / "source.tif", values, UTM, from_origin(WEST, NORTH, PIXEL, PIXEL))
    export = write_tiny_export(tmp_path / "model")
    command = ["translate", str(export), str(source), "--output", str(tmp_path / "out"), "--tile-size", "64"]
    assert main([*command, "--dtype", "float32"]) == 0
    pipe = Pix2PixPipeline.from_pretrained(export, device="cpu", dtype="float32")
    expected = pipe(np.moveaxis(values, 0, -1), tile_size=64)
    with rasterio.open(tmp_path / "out" / "source.tif") as made:
        assert np.array_equal(np.moveaxis(made.read(), 0, -1), expected)


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
        environment = os.environ | {"GDAL_CACHEMAX": "16", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", IDENTITY + MEASURED, str(export), str(source), str(tmp_path / f"made{side}.tif")],
            env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        peaks.append(int(done.stdout))
    assert peaks[1] < 1.2 * peaks[0]
