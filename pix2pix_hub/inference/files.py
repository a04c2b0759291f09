"""Image files → translated image files: names, depth and metadata are kept, and one bad file stops nothing."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pix2pix_hub.data.encoding import Metadata
from pix2pix_hub.data.files import IMAGE_SUFFIXES
from pix2pix_hub.errors import UserError
from pix2pix_hub.inference.inputs import Prepared
from pix2pix_hub.inference.pipeline import Pix2PixPipeline

WINDOW = 32  # files that are in memory together: what batches of one size are made from
THREADS = 4  # that read and write


@dataclass(frozen=True)
class Job:
    """One file to translate."""

    source: Path
    output: Path  # its suffix gives way where that kind of file cannot hold the result


@dataclass(frozen=True, eq=False)
class _Opened:
    job: Job
    image: Prepared
    metadata: Metadata


def plan_jobs(inputs: Sequence[str], output: Path, *, overwrite: bool = False) -> list[Job]:
    """What to translate, and where to.

    Args:
        inputs: files, folders (searched to the bottom, their structure is kept) and glob patterns (`**` goes down).
        output: folder of the results.
        overwrite: replace results that exist.

    Raises:
        UserError: nothing found, two inputs of one name, an input that would be overwritten, or results that exist.
    """
    jobs = [Job(path, output / name) for text in inputs for path, name in _found(text)]
    jobs = list({job.source.resolve(): job for job in jobs}.values())
    sources = {job.source.resolve() for job in jobs}
    places: dict[Path, Path] = {}
    for job in jobs:
        if job.output.resolve() in sources:
            raise UserError(f"--output {output} would overwrite the input {job.source}: name another folder.")
        if (other := places.setdefault(job.output, job.source)) != job.source:
            raise UserError(f"{other} and {job.source} would both be written to {job.output}: translate them apart.")
    existing = [job.output for job in jobs if job.output.exists()]
    if existing and not overwrite:
        raise UserError(
            f"{len(existing)} of {len(jobs)} results exist, {existing[0]} among them. Replace them with --overwrite, or "
            "name another --output."
        )
    return jobs


def _found(text: str) -> Iterator[tuple[Path, Path]]:
    """The files that one input names, and what to call their results inside the output folder."""
    path = Path(text).expanduser()
    if path.is_dir():
        files = [
            (file, file.relative_to(path)) for file in sorted(path.rglob("*")) if _is_image(file.relative_to(path))
        ]
        wanted = f"with images ({', '.join(sorted(IMAGE_SUFFIXES))})"
    elif glob.has_magic(text) and not path.exists():
        found = sorted(glob.glob(str(path), recursive=True))
        files = [(Path(file), Path(Path(file).name)) for file in found if Path(file).is_file()]
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
    jobs: Sequence[Job],
    *,
    overwrite: bool = False,
    report: Callable[[int], object],
    **options: Any,
) -> dict[Path, str]:
    """Translate and write all files.

    Args:
        pipe: the model.
        jobs: of `plan_jobs`.
        overwrite: replace results that exist under another suffix than was planned for.
        report: called with the number of files done after each.
        options: of `Pix2PixPipeline.__call__`.

    Returns:
        The files that could not be translated, each with the reason.
    """
    bad: dict[Path, str] = {}
    writer = _Writer(jobs, overwrite)
    with ThreadPoolExecutor(THREADS) as pool:
        for at in range(0, len(jobs), WINDOW):
            window = jobs[at : at + WINDOW]
            opened = list(pool.map(lambda job: _attempt(lambda: _open(job, pipe.preprocessor.source)), window))
            good = [one for one in opened if isinstance(one, _Opened)]
            made = pipe([one.image for one in good], **options)
            results = pool.map(lambda one, image: _attempt(lambda: writer.write(one, image, pipe)), good, made)
            written = dict(zip((one.job.source for one in good), results, strict=True))
            for job, one in zip(window, opened, strict=True):
                outcome = written.get(job.source, one)
                if isinstance(outcome, str):
                    bad[job.source] = outcome
                report(1)
    return bad
