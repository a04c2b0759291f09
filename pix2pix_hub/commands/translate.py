"""`pix2pix-hub translate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from pix2pix_hub.commands.output import say

Precision = Literal["auto", "float32", "bf16", "fp16"]


def translate(
    model: Positional[str],
    inputs: Positional[tuple[str, ...]],
    output: Path,
    overwrite: bool = False,
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
    16 bits, classes, transparency) gives way to PNG, and that to TIFF.

    Args:
        model: Export, run folder or Hub id.
        inputs: Files, folders and patterns.
        output: Folder of the results.
        overwrite: Replace results that exist.
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
    from tqdm import tqdm

    from pix2pix_hub.inference.files import plan_jobs, translate_files
    from pix2pix_hub.inference.pipeline import Pix2PixPipeline

    jobs = plan_jobs(inputs, output, overwrite=overwrite, num_samples=num_samples)
    pipe = Pix2PixPipeline.from_pretrained(model, revision=revision, device=device, dtype=dtype, compile=compile)
    options: dict[str, Any] = dict(
        stochastic=stochastic, seed=seed, num_samples=num_samples, tile_size=tile_size, batch_size=batch_size
    )
    pipe([], **options)  # refuses what does not go together before any file is opened
    with tqdm(total=len(jobs), unit="image", disable=None) as bar:
        bad = translate_files(
            pipe,
            jobs,
            overwrite=overwrite,
            report=bar.update,
            progress=lambda done, total: bar.set_postfix_str(f"step {done}/{total}"),
            **options,
        )
    say(f"{len(jobs) - len(bad)} of {len(jobs)} images are in {output}.")
    if bad:
        say(f"{len(bad)} could not be translated:" + "".join(f"\n  {reason}" for reason in bad.values()))
    return 1 if bad else 0
