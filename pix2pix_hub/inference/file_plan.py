"""Which files are translated, and where to: all names are settled before anything is written."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pix2pix_hub.data.encoding import suffix_for
from pix2pix_hub.data.preprocessor import Preprocessor
from pix2pix_hub.data.sources import IMAGE_SUFFIXES, images_below
from pix2pix_hub.inference.inputs import other_depth, output_format
from pix2pix_hub.inference.results import Canvas, Kind, decoded_result
from pix2pix_hub.util import UserError

Existing = Literal["refuse", "skip", "overwrite"]  # what happens to results that exist


@dataclass(frozen=True)
class FileJob:
    """One file to translate."""

    source: Path
    outputs: tuple[Path, ...]  # one a sample; the suffix gives way where the file is not what its name says


def find_inputs(inputs: Sequence[str]) -> dict[Path, Path]:
    """Image files, each with the name of its result inside the output folder.

    Args:
        inputs: files, folders (searched to the bottom, their structure is kept) and glob patterns (`**` goes down).

    Raises:
        UserError: nothing found.
    """
    if not inputs:
        raise UserError("No images were named: give files, folders or patterns.")
    found = {path.resolve(): (path, name) for text in inputs for path, name in _found(text)}
    return dict(found.values())


def _found(text: str) -> Iterator[tuple[Path, Path]]:
    """The files that one input names, and what to call their results inside the output folder."""
    path = Path(text).expanduser()
    if path.is_dir():
        files = [(file, file.relative_to(path)) for file in images_below(path)]
        wanted = f"with images ({', '.join(sorted(IMAGE_SUFFIXES))})"
    elif glob.has_magic(text) and not path.exists():
        matches = (Path(match) for match in sorted(glob.glob(str(path), recursive=True)))
        files = [(match, Path(match.name)) for match in matches if match.is_file()]
        wanted = "that files match"
    else:
        files, wanted = [(path, Path(path.name))] if path.is_file() else [], "that exists"
    if not files:
        raise UserError(f"{text}: expected a file, a folder or a pattern {wanted}.")
    yield from files


def plan_jobs(
    found: dict[Path, Path],
    output: Path,
    preprocessor: Preprocessor,
    *,
    existing: Existing = "refuse",
    num_samples: int = 1,
) -> list[FileJob]:
    """What is to be done.

    Args:
        found: of `find_inputs`.
        output: folder of the results.
        preprocessor: of the model, which says how results are stored.
        existing: what happens to results that exist: "refuse", "skip" (a file whose results are all there is left
            out) or "overwrite".
        num_samples: results of each file, told apart by `_1`, `_2`, … in their names.

    Raises:
        UserError: two inputs of one name, an input that would be overwritten, or results that exist.
    """
    suffixes = {name.suffix: result_suffix(name.suffix, preprocessor) for name in found.values()}
    jobs = [
        FileJob(path, _sample_names(output / name, suffixes[name.suffix], num_samples)) for path, name in found.items()
    ]
    inputs = {path.resolve() for path in found}
    places: dict[Path, Path] = {}
    for place, source in [(place, job.source) for job in jobs for place in job.outputs]:
        if place.resolve() in inputs:
            raise UserError(f"--output {output} would overwrite the input {place}: name another folder.")
        if places.setdefault(place, source) != source:
            raise UserError(f"{places[place]} and {source} would both be written to {place}: translate them apart.")
    there = [place for place in places if place.exists()]
    if there and existing == "refuse":
        raise UserError(
            f"Results exist already ({len(there)} of {len(places)}), {there[0]} among them. Go on with what is missing "
            "(--skip-existing), replace them (--overwrite), or name another --output."
        )
    return [job for job in jobs if existing != "skip" or not all(place.exists() for place in job.outputs)]


def _sample_names(place: Path, suffix: str, count: int) -> tuple[Path, ...]:
    place = place if place.suffix.lower() == suffix else place.with_suffix(suffix)
    if count == 1:
        return (place,)
    return tuple(place.with_name(f"{place.stem}_{number}{place.suffix}") for number in range(1, count + 1))


def result_suffix(suffix: str, preprocessor: Preprocessor) -> str:
    """Of what is made of a file of that suffix: the same, where such a file can hold it.

    The kinds of file that may be deeper than 8 bits (PNG, TIFF, NPY) hold whatever depth goes through them.
    """
    depth = other_depth(preprocessor.source, "uint8")
    blank = Canvas((1, 1), preprocessor.target.channels, output_format(depth, preprocessor.target), Kind("pil"))
    blank.pixels.zero_()
    return suffix_for(decoded_result(blank.finish(), preprocessor.target), suffix)
