"""`pix2pix-hub translate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from pix2pix_hub.commands.output import say
from pix2pix_hub.errors import UserError
from pix2pix_hub.wording import counted

Precision = Literal["auto", "float32", "bf16", "fp16"]


def translate(
    model: Positional[str],
    inputs: Positional[tuple[str, ...]],
    output: Path,
    overwrite: bool = False,
    skip_existing: bool = False,
    stochastic: bool = False,
    seed: int | None = None,
    num_samples: int = 1,
    tile_size: int = 1024,
    batch_size: int | None = None,
    device: str = "auto",
    dtype: Precision = "auto",
    compile: bool = False,
    revision: str | None = None,
) -> int:
    """Translate image files.

    Results keep the names of their sources, EXIF and colour profile. A kind of file that cannot hold a result (JPEG:
    16 bits, classes, transparency) gives way to PNG, and that to TIFF. The exit status is 1 where some could not be
    translated.

    Args:
        model: Export, run folder, or Hub id (user/name, user/name@revision).
        inputs: Files, folders and patterns.
        output: Folder of the results.
        overwrite: Replace results that exist.
        skip_existing: Leave results that exist as they are: a run that was stopped goes on.
        stochastic: Leave dropout on.
        seed: Of the dropout.
        num_samples: Variants of each image, with --stochastic.
        tile_size: Height or width in pixels beyond which an image is made in tiles.
        batch_size: Images of one size that are run together; by default 1 on a CPU, else up to 32.
        device: auto, cpu, cuda, cuda:1, mps, ….
        dtype: Numbers to compute in; auto: bf16 or fp16 where the device has units for it, else float32.
        compile: Compile the network for each size of image: some ten seconds each, pays for hundreds of one size.
        revision: Branch, tag or commit of a Hub model.
    """
    if overwrite and skip_existing:
        raise UserError("--overwrite replaces what --skip-existing leaves: give one of them.")
    from tqdm import tqdm

    from pix2pix_hub.devices import keep_freed_memory
    from pix2pix_hub.inference.files import Existing, find_inputs, plan_jobs, translate_files
    from pix2pix_hub.inference.pipeline import Pix2PixPipeline

    found = find_inputs(inputs)
    keep_freed_memory()
    pipe = Pix2PixPipeline.from_pretrained(model, revision=revision, device=device, dtype=dtype, compile=compile)
    options: dict[str, Any] = dict(
        stochastic=stochastic, seed=seed, num_samples=num_samples, tile_size=tile_size, batch_size=batch_size
    )
    pipe([], **options)  # refuses what does not go together before any file is opened
    existing: Existing = "overwrite" if overwrite else "skip" if skip_existing else "refuse"
    jobs = plan_jobs(found, output, pipe.preprocessor, existing=existing, num_samples=num_samples)
    with tqdm(total=len(jobs), unit="image", disable=None) as bar:
        bad = translate_files(
            pipe,
            jobs,
            existing=existing,
            report=bar.update,
            progress=lambda done, total: bar.set_postfix_str(f"step {done}/{total}"),
            **options,
        )
    before = f", {len(found) - len(jobs)} of them from before" if len(jobs) < len(found) else ""
    say(f"{len(found) - len(bad)} of {counted(len(found), 'image')} are in {output}{before}.")
    if bad:
        say(f"{len(bad)} could not be translated:" + "".join(f"\n  {reason}" for reason in bad.values()))
    return 1 if bad else 0
