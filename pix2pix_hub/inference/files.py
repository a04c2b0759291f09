"""Image files → translated image files: names, depth and metadata are kept, and one bad file stops nothing."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from pix2pix_hub.data.encoding import Metadata, encode, read_metadata, suffix_for
from pix2pix_hub.data.files import IMAGE_SUFFIXES
from pix2pix_hub.data.pixels import Decoded, PixelArray, from_memory, read_image
from pix2pix_hub.data.preprocessor import PICTURE_MODES
from pix2pix_hub.errors import UserError
from pix2pix_hub.files import write_aside
from pix2pix_hub.images import PixelFormat, read_bytes
from pix2pix_hub.inference.inputs import Prepared, prepare_decoded
from pix2pix_hub.inference.pipeline import Pix2PixPipeline

WINDOW_FILES, WINDOW_PIXELS = 32, 2**25  # that are in memory together: what batches of one size are made from
THREADS = 4  # that read and write
Done = TypeVar("Done")


@dataclass(frozen=True)
class FileJob:
    """One file to translate."""

    source: Path
    outputs: tuple[Path, ...]  # one a sample; the suffix gives way where such a file cannot hold the result


@dataclass(frozen=True, eq=False)
class _Opened:
    job: FileJob
    image: Prepared
    metadata: Metadata


def plan_jobs(inputs: Sequence[str], output: Path, *, overwrite: bool = False, num_samples: int = 1) -> list[FileJob]:
    """What to translate, and where to.

    Args:
        inputs: files, folders (searched to the bottom, their structure is kept) and glob patterns (`**` goes down).
        output: folder of the results.
        overwrite: replace results that exist.
        num_samples: results of each file, told apart by `_1`, `_2`, … in their names.

    Raises:
        UserError: nothing found, two inputs of one name, an input that would be overwritten, or results that exist.
    """
    if not inputs:
        raise UserError("No images were named: give files, folders or patterns.")
    found = {path.resolve(): (path, output / name) for text in inputs for path, name in _found(text)}
    jobs = [FileJob(path, _sample_names(place, num_samples)) for path, place in found.values()]
    places: dict[Path, Path] = {}
    for place, source in [(place, job.source) for job in jobs for place in job.outputs]:
        if place.resolve() in found:
            raise UserError(f"--output {output} would overwrite the input {place}: name another folder.")
        if places.setdefault(place, source) != source:
            raise UserError(f"{places[place]} and {source} would both be written to {place}: translate them apart.")
    existing = [place for place in places if place.exists()]
    if existing and not overwrite:
        raise UserError(
            f"{len(existing)} of {len(places)} results exist, {existing[0]} among them. Replace them with --overwrite, "
            "or name another --output."
        )
    return jobs


def _sample_names(place: Path, count: int) -> tuple[Path, ...]:
    if count == 1:
        return (place,)
    return tuple(place.with_name(f"{place.stem}_{number}{place.suffix}") for number in range(1, count + 1))


def _found(text: str) -> Iterator[tuple[Path, Path]]:
    """The files that one input names, and what to call their results inside the output folder."""
    path = Path(text).expanduser()
    if path.is_dir():
        below = (file.relative_to(path) for file in sorted(path.rglob("*")) if file.is_file())
        files = [(path / name, name) for name in below if _is_image(name)]
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


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not any(part.startswith(".") for part in path.parts)


def translate_files(
    pipe: Pix2PixPipeline,
    jobs: Sequence[FileJob],
    *,
    overwrite: bool = False,
    report: Callable[[], object],
    **options: Any,
) -> dict[Path, str]:
    """Translate and write all files.

    Args:
        pipe: the model.
        jobs: of `plan_jobs`.
        overwrite: replace results that exist under another suffix than was planned.
        report: called after each file.
        options: of `Pix2PixPipeline.__call__`.

    Returns:
        The files that could not be translated, each with the reason.
    """
    bad: dict[Path, str] = {}
    writer = _Writer(jobs, pipe.preprocessor.target, overwrite)
    with ThreadPoolExecutor(THREADS) as pool:
        attempts = _in_parallel(pool, lambda job: _attempt(lambda: _open(job, pipe.preprocessor.source)), jobs)
        for window in _windows(zip(jobs, attempts, strict=True)):
            opened = [one for _, one in window if isinstance(one, _Opened)]
            made = pipe([one.image for one in opened], **options)
            written = pool.map(lambda one, result: _attempt(lambda: writer.write(one, result)), opened, made)
            outcomes = dict(zip((one.job for one in opened), written, strict=True))
            for job, one in window:
                if isinstance(outcome := outcomes.get(job, one), str):
                    bad[job.source] = outcome
                report()
    return bad


def _in_parallel(pool: ThreadPoolExecutor, read: Callable[[FileJob], Any], jobs: Sequence[FileJob]) -> Iterator[Any]:
    """In order, a few ahead of what is asked for; never all of them, which would fill the memory."""
    for at in range(0, len(jobs), THREADS):
        yield from pool.map(read, jobs[at : at + THREADS])


def _windows(attempts: Iterable[tuple[FileJob, _Opened | str]]) -> Iterator[list[tuple[FileJob, _Opened | str]]]:
    window: list[tuple[FileJob, _Opened | str]] = []
    pixels = 0
    for job, one in attempts:
        window.append((job, one))
        pixels += one.image.stored[0].numel() if isinstance(one, _Opened) else 0
        if len(window) >= WINDOW_FILES or pixels >= WINDOW_PIXELS:
            yield window
            window, pixels = [], 0
    if window:
        yield window


def _attempt(action: Callable[[], Done]) -> Done | str:
    """What it returns, or why it failed."""
    try:
        return action()
    except (UserError, OSError) as error:
        return str(error)


def _open(job: FileJob, source: PixelFormat) -> _Opened:
    name = str(job.source)
    data = read_bytes(job.source, name)
    decoded = read_image(data, name)
    return _Opened(job, prepare_decoded(decoded, source, name), read_metadata(data, decoded))


class _Writer:
    """Writes results; no input and no other result is replaced."""

    def __init__(self, jobs: Sequence[FileJob], target: PixelFormat, overwrite: bool) -> None:
        self.target, self.overwrite = target, overwrite
        self.taken = {job.source.resolve() for job in jobs}
        self.lock = Lock()

    def write(self, opened: _Opened, made: Any) -> None:
        """Write one result, or a list of samples."""
        samples = made if isinstance(made, list) else [made]
        for place, sample in zip(opened.job.outputs, samples, strict=True):
            decoded = decoded_result(sample, self.target)
            suffix = suffix_for(decoded, place.suffix)
            path = place if suffix == place.suffix.lower() else place.with_suffix(suffix)
            self._take(path)
            content = encode(decoded, str(path), suffix, opened.metadata)
            path.parent.mkdir(parents=True, exist_ok=True)
            with write_aside(path) as partial:
                partial.write_bytes(content)

    def _take(self, path: Path) -> None:
        with self.lock:
            if path.resolve() in self.taken:
                raise UserError(f"{path} is an input or the result of another one: translate them apart.")
            if path.exists() and not self.overwrite:
                raise UserError(f"{path} exists: replace it with --overwrite, or name another --output.")
            self.taken.add(path.resolve())


def decoded_result(made: Image.Image | np.ndarray, target: PixelFormat) -> Decoded:
    """What a pipeline made of a file → what can be written."""
    decoded = from_memory(made, "the result")
    if isinstance(decoded, Image.Image):
        return decoded
    return PixelArray(decoded.values, target.mode if target.mode in PICTURE_MODES else "channels")
