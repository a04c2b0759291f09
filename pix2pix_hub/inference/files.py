"""Image files → translated image files: names, depth and metadata are kept, and one bad file stops nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Any, Literal, TypeVar

import torch

from pix2pix_hub.export import HALVES, Preprocessor
from pix2pix_hub.image.raster import has_coordinates
from pix2pix_hub.image.read import read_bytes, read_image
from pix2pix_hub.image.write import Metadata, encode, read_metadata, suffix_for
from pix2pix_hub.inference.pipeline import Canvas, Pix2PixPipeline, Prepared, prepare
from pix2pix_hub.inference.raster import translate_raster
from pix2pix_hub.util import UserError, write_aside

OPTIONS = {half: f"translate its {half} half alone: --side {half}" for half in HALVES} | {
    "make_source": "make a source of it first: --make-source"
}  # of a `remark`

WINDOW_IMAGES, WINDOW_PIXELS = 32, 2**25  # read together: what batches of one size are made from; two are in memory
THREADS = 4  # that read and write
Existing = Literal["refuse", "skip", "overwrite"]  # what happens to results that exist
Item = TypeVar("Item")
Kept = TypeVar("Kept")
Done = TypeVar("Done")


def plan_jobs(
    found: dict[Path, Path],
    output: Path,
    preprocessor: Preprocessor,
    *,
    existing: Existing = "refuse",
    num_samples: int = 1,
) -> dict[Path, tuple[Path, ...]]:
    """Settle all names before anything is written: the files to translate, and for each the files of its samples.

    The suffix gives way later where a file is not what its name says.

    Args:
        found: of `data.pairs.find_inputs`.
        output: folder of the results.
        preprocessor: of the model, which says how results are stored.
        existing: what happens to results that exist: "refuse", "skip" (a file is skipped whose results are all there)
            or "overwrite".
        num_samples: results of each file, told apart by `_1`, `_2`, … in their names.

    Raises:
        UserError: two inputs of one name, an input that would be overwritten, or results that exist.
    """
    source, target = preprocessor.source, preprocessor.target
    # the kinds of file that may be deeper than 8 bits (PNG, TIFF, NPY) hold whatever depth goes through them
    depth = None if source.mode == "labels" or source.dtype in ("uint8", "float32") else "uint8"
    blank = Canvas(None, Prepared(torch.zeros(1, 1, 1), None, depth), target.channels, target, "decoded")
    blank.pixels.zero_()
    suffixes = {name.suffix: suffix_for(blank.finish(), name.suffix) for name in found.values()}
    jobs: dict[Path, tuple[Path, ...]] = {}
    for path, name in found.items():
        suffix = suffixes[name.suffix]
        place = output / (name if name.suffix.lower() == suffix else name.with_suffix(suffix))
        numbered = (place.with_name(f"{place.stem}_{number + 1}{place.suffix}") for number in range(num_samples))
        jobs[path] = (place,) if num_samples == 1 else tuple(numbered)
    inputs = {path.resolve() for path in found}
    places: dict[Path, Path] = {}
    for place, path in [(place, path) for path, outputs in jobs.items() for place in outputs]:
        if place.resolve() in inputs:
            raise UserError(f"--output {output} would overwrite the input {place}: name another folder.")
        if places.setdefault(place, path) != path:
            raise UserError(f"{places[place]} and {path} would both be written to {place}: translate them apart.")
    there = [place for place in places if place.exists()]
    if there and existing == "refuse":
        raise UserError(
            f"Results exist already ({len(there)} of {len(places)}), {there[0]} among them. Go on with what is missing "
            "(--skip-existing), replace them (--overwrite), or name another --output."
        )
    if existing == "skip":
        return {path: outputs for path, outputs in jobs.items() if not all(place.exists() for place in outputs)}
    return jobs


def translate_files(
    pipe: Pix2PixPipeline,
    jobs: Mapping[Path, Sequence[Path]],
    *,
    existing: Existing = "refuse",
    make_source: bool = False,
    side: str | None = None,
    cog: bool = False,
    report: Callable[[], object],
    **options: Any,
) -> dict[Path, str]:
    """Translate and write all files; no input and no other result is replaced.

    GeoTIFFs become GeoTIFFs, one after the other: see `raster.py`.

    Args:
        pipe: the model.
        jobs: of `plan_jobs`.
        existing: as in `plan_jobs`, for results that cannot be of the kind of file that was planned.
        make_source: the files are photos, of which sources are made first.
        side: "left" or "right": the files are pairs side by side, of which that half is translated; "whole": they are
            not, whatever they look like; None: the same, but what looks like a pair is pointed out.
        cog: write GeoTIFFs as cloud-optimised ones.
        report: called after each file.
        options: of `Pix2PixPipeline.__call__`.

    Returns:
        The files that could not be translated, each with the reason, which begins with the file.
    """
    taken, lock = {source.resolve() for source in jobs}, Lock()

    def read(source: Path) -> tuple[Prepared, Metadata]:
        name = str(source)
        data = read_bytes(source, name)
        image = read_image(data, name)
        if side in HALVES:
            image = image.half(side, name)
        if make_source:
            image = pipe.make_source(image, name)
        prepared = prepare(image, pipe.preprocessor.source, name)
        if side is None:
            pipe.point_out(prepared, name, OPTIONS)
        return prepared, read_metadata(data)

    def write(source: Path, metadata: Metadata, made: Any) -> None:
        for place, sample in zip(jobs[source], made if isinstance(made, list) else [made], strict=True):
            suffix = suffix_for(sample, place.suffix)
            path = place if suffix == place.suffix.lower() else place.with_suffix(suffix)
            with lock:
                if path.resolve() in taken:
                    raise UserError(f"{path} is an input or the result of another one: translate them apart.")
                if path.exists() and existing == "refuse":
                    raise UserError(f"{path} exists: replace it with --overwrite, or name another --output.")
                taken.add(path.resolve())
                if path.exists() and existing == "skip":
                    continue
            content = encode(sample, str(path), suffix, metadata)
            path.parent.mkdir(parents=True, exist_ok=True)
            with write_aside(path) as aside:
                aside.write_bytes(content)

    def raster(source: Path) -> Exception | None:
        places = dict(enumerate(jobs[source]))
        there = [number for number, place in places.items() if place.exists()]
        try:
            if make_source:
                raise UserError(f"{source} has coordinates, and sources are made of plain photos only: leave it out.")
            if side in HALVES:
                raise UserError(f"{source} has coordinates, and --side is for plain pictures only: leave it out.")
            if there and existing == "refuse":
                raise UserError(f"{places[there[0]]} exists: replace it with --overwrite, or name another --output.")
            used = {name: options[name] for name in ("tile_size", "stochastic", "seed", "progress") if name in options}
            if existing == "skip":
                places = {number: place for number, place in places.items() if number not in there}
            translate_raster(pipe, source, places, cog=cog, **used)
        except (UserError, OSError) as error:
            return error
        return None

    rasters = {source for source in jobs if has_coordinates(source)}
    images = [source for source in jobs if source not in rasters]
    bad: dict[Path, str] = {}
    for source, outcome in chain(
        translate_each(pipe, images, read, write, **options),
        ((source, raster(source)) for source in jobs if source in rasters),
    ):
        if isinstance(outcome, Exception):
            name, reason = str(source), str(outcome)
            bad[source] = reason if reason.startswith(name) else f"{name}: {reason}"
        report()
    return bad


def translate_each(
    pipe: Pix2PixPipeline,
    items: Sequence[Item],
    read: Callable[[Item], tuple[Prepared, Kept]],
    write: Callable[[Item, Kept, Any], Done],
    **options: Any,
) -> Iterator[tuple[Item, Done | Exception]]:
    """Read, translate and write items, a window of them at a time, in order; and one that fails stops nothing.

    While a window is translated the next one is read.

    Args:
        pipe: the model.
        items: whatever `read` reads.
        read: gives the image, and what `write` needs of the item besides.
        write: takes the item, what `read` gave and the result, a `Decoded` (or a list of samples).
        options: of `Pix2PixPipeline.__call__`.

    Yields:
        Each item, with what `write` returned or why it could not be translated.
    """

    def attempt(action: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return action(*arguments)
        except (UserError, OSError) as error:
            return error

    def windows() -> Iterator[list[tuple[Item, Any]]]:
        window: list[tuple[Item, Any]] = []
        for at in range(0, len(items), THREADS):  # never all ahead, which would fill the memory
            some = items[at : at + THREADS]
            window += zip(some, pool.map(partial(attempt, read), some), strict=True)
            pixels = sum(one[0].stored[0].numel() for _, one in window if not isinstance(one, Exception))
            if len(window) >= WINDOW_IMAGES or pixels >= WINDOW_PIXELS or at + THREADS >= len(items):
                yield window
                window = []

    with ThreadPoolExecutor(THREADS) as pool, ThreadPoolExecutor(1) as ahead:
        to_come = windows()
        following = ahead.submit(next, to_come, None)
        while (window := following.result()) is not None:
            following = ahead.submit(next, to_come, None)
            good = [(item, *one) for item, one in window if not isinstance(one, Exception)]
            made = pipe([image for _, image, _ in good], output_type="decoded", **options)
            written = pool.map(lambda one, result: attempt(write, one[0], one[2], result), good, made)
            yield from ((item, one if isinstance(one, Exception) else next(written)) for item, one in window)
