"""Image files → translated image files: names, depth and metadata are kept, and one bad file stops nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from pix2pix_hub.data.encoding import Metadata, encode, read_metadata, suffix_for
from pix2pix_hub.data.headers import read_bytes
from pix2pix_hub.data.pixels import read_image
from pix2pix_hub.images import PixelFormat
from pix2pix_hub.inference.file_plan import Existing, FileJob
from pix2pix_hub.inference.inputs import Prepared, prepare_decoded
from pix2pix_hub.inference.pipeline import Pix2PixPipeline
from pix2pix_hub.inference.results import decoded_result
from pix2pix_hub.util import UserError, write_aside

WINDOW_FILES, WINDOW_PIXELS = 32, 2**25  # that are in memory together: what batches of one size are made from
THREADS = 4  # that read and write
Done = TypeVar("Done")


@dataclass(frozen=True, eq=False)
class _Opened:
    job: FileJob
    image: Prepared
    metadata: Metadata


def translate_files(
    pipe: Pix2PixPipeline,
    jobs: Sequence[FileJob],
    *,
    existing: Existing = "refuse",
    report: Callable[[], object],
    **options: Any,
) -> dict[Path, str]:
    """Translate and write all files.

    Args:
        pipe: the model.
        jobs: of `plan_jobs`.
        existing: as in `plan_jobs`, for results that cannot be of the kind of file that was planned.
        report: called after each file.
        options: of `Pix2PixPipeline.__call__`.

    Returns:
        The files that could not be translated, each with the reason, which begins with the file.
    """
    bad: dict[Path, str] = {}
    writer = _Writer(jobs, pipe.preprocessor.target, existing)
    with ThreadPoolExecutor(THREADS) as pool:
        attempts = _in_parallel(pool, lambda job: _attempt(lambda: _open(job, pipe.preprocessor.source)), jobs)
        for window in _windows(zip(jobs, attempts, strict=True)):
            opened = [one for _, one in window if isinstance(one, _Opened)]
            made = pipe([one.image for one in opened], **options)
            written = pool.map(lambda one, result: _attempt(lambda: writer.write(one, result)), opened, made)
            outcomes = dict(zip((one.job for one in opened), written, strict=True))
            for job, one in window:
                if isinstance(outcome := outcomes.get(job, one), str):
                    name = str(job.source)
                    bad[job.source] = outcome if outcome.startswith(name) else f"{name}: {outcome}"
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

    def __init__(self, jobs: Sequence[FileJob], target: PixelFormat, existing: Existing) -> None:
        self.target, self.existing = target, existing
        self.taken = {job.source.resolve() for job in jobs}
        self.lock = Lock()

    def write(self, opened: _Opened, made: Any) -> None:
        """Write one result, or a list of samples."""
        samples = made if isinstance(made, list) else [made]
        for place, sample in zip(opened.job.outputs, samples, strict=True):
            decoded = decoded_result(sample, self.target)
            suffix = suffix_for(decoded, place.suffix)
            path = place if suffix == place.suffix.lower() else place.with_suffix(suffix)
            if not self._take(path):
                continue
            content = encode(decoded, str(path), suffix, opened.metadata)
            path.parent.mkdir(parents=True, exist_ok=True)
            with write_aside(path) as partial:
                partial.write_bytes(content)

    def _take(self, path: Path) -> bool:
        """Whether to write there."""
        with self.lock:
            if path.resolve() in self.taken:
                raise UserError(f"{path} is an input or the result of another one: translate them apart.")
            if path.exists() and self.existing == "refuse":
                raise UserError(f"{path} exists: replace it with --overwrite, or name another --output.")
            self.taken.add(path.resolve())
            return self.existing != "skip" or not path.exists()
