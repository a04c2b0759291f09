"""`pix2pix-hub translate`, and `translate-dataset`, which also runs under `accelerate launch -m pix2pix_hub.cli`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from pix2pix_hub.cli.data import NamedDataset
from pix2pix_hub.cli.options import Model
from pix2pix_hub.config import TranslationOptions
from pix2pix_hub.util import UserError, counted, public_name, say

if TYPE_CHECKING:
    import torch

    from pix2pix_hub.inference.pipeline import Pix2PixPipeline

How = Annotated[TranslationOptions, arg(name="model")]


def open_model(model: str, how: TranslationOptions, device: str | torch.device, **others: Any) -> Pix2PixPipeline:
    """The pipeline, which refuses options of a call (also `others`) that do not go together."""
    from pix2pix_hub.inference.pipeline import Pix2PixPipeline

    if not how.stochastic and (how.seed is not None or others.get("num_samples", 1) != 1):
        raise UserError(
            "--seed and --num-samples are for --stochastic: without dropout every sample is the same. Add it, or leave "
            "them out."
        )
    pipe = Pix2PixPipeline.from_pretrained(
        model, revision=how.revision, device=device, dtype=how.dtype, compile=how.compile
    )
    pipe([], **how.of_calls, **others)
    return pipe


def translate_images(
    model: Model,
    inputs: Annotated[tuple[str, ...], Positional, arg(metavar="IMAGES ...", help_behavior_hint="(one or more)")],
    how: How,
    output: Path | None = None,
    overwrite: bool = False,
    skip_existing: bool = False,
    num_samples: int = 1,
    make_source: bool = False,
    side: Literal["left", "right", "whole"] | None = None,
    cog: bool = False,
    device: str = "auto",
) -> int:
    """Translate image files.

    Results keep the names of their sources, EXIF and colour profile. A kind of file that cannot hold a result (JPEG:
    16 bits, classes, transparency) gives way to PNG, and that to TIFF. A GeoTIFF, of any size, becomes one of the same
    place, mask and blocks. The exit status is 1 where some could not be
    translated.

    Args:
        inputs: Files, folders and patterns.
        output: Folder of the results; without it they go beside the images, as NAME.pix2pix and the image's suffix.
        overwrite: Replace results that exist.
        skip_existing: Leave results that exist as they are: a run that was stopped goes on.
        num_samples: Variants of each image, with --stochastic.
        cog: Write GeoTIFFs as cloud-optimised ones (COG).
        make_source: The files are photos: make sources of them first, as data make did for training.
        side: The files are pairs side by side, and that half is the source; whole: they are sources as they are.
        device: auto, cpu, cuda, cuda:1, mps, ….
    """
    if overwrite and skip_existing:
        raise UserError("--overwrite replaces what --skip-existing leaves: give one of them.")
    from tqdm import tqdm

    from pix2pix_hub.data.pairs import RESULT_MARK, find_inputs
    from pix2pix_hub.devices import keep_freed_memory
    from pix2pix_hub.inference.files import Existing, plan_jobs, translate_files

    found = find_inputs(inputs)
    if output is None:
        found = {path: path.with_stem(f"{path.stem}{RESULT_MARK}") for path in found if RESULT_MARK not in path.name}
        if not found:
            raise UserError(f"All these are results (NAME{RESULT_MARK}.*): name sources, or --output FOLDER.")
    keep_freed_memory()
    pipe = open_model(model, how, device, num_samples=num_samples, make_source=make_source)
    existing: Existing = "overwrite" if overwrite else "skip" if skip_existing else "refuse"
    jobs = plan_jobs(found, output or Path(), pipe.preprocessor, existing=existing, num_samples=num_samples)
    with tqdm(total=len(jobs), unit="image", disable=None) as bar:
        bad = translate_files(
            pipe,
            jobs,
            existing=existing,
            side=side,
            cog=cog,
            report=bar.update,
            progress=lambda done, total: bar.set_postfix_str(f"step {done}/{total}"),
            num_samples=num_samples,
            make_source=make_source,
            **how.of_calls,
        )
    before = f", {len(found) - len(jobs)} of them from before" if len(jobs) < len(found) else ""
    place = f"beside the sources, as NAME{RESULT_MARK}.*" if output is None else f"in {output}"
    done = f"{len(found) - len(bad)} of " if bad else ""
    say(f"{done}{counted(len(found), 'image')} translated{before}, {place}.")
    if bad:
        say(f"{len(bad)} could not be translated:" + "".join(f"\n  {reason}" for reason in bad.values()))
    return 1 if bad else 0


def translate_dataset(
    model: Model,
    data: NamedDataset,
    how: How,
    output: Path | None = None,
    push: str | None = None,
    private: bool = False,
    split: str | None = None,
    rows_per_file: int = 64,
) -> int:
    """Translate a data set into one with columns `source`, `generated` and, where there is one, `target`.

    `--source-column` alone names images that stand by themselves. With `--stochastic` comes a `--seed`.
    Several processes, on GPUs or CPUs: `accelerate launch --num_processes 4 -m pix2pix_hub.cli translate-dataset …`.
    Stopped, the same command goes on where it was, on any number of processes.

    Args:
        output: Folder to write Parquet files and a card to.
        push: Data set on the Hub to push the result to, user/name; without --output, the folder is translated/name.
        private: Make the data set on the Hub private.
        split: The only split to translate.
        rows_per_file: Rows of a Parquet file, the unit that a process writes.
    """
    if output is None and push is None:
        raise UserError("name where the data set goes: --output FOLDER, --push user/name or both.")
    if how.stochastic and how.seed is None:
        raise UserError("--stochastic needs --seed here, so that a run that was stopped goes on with the same.")
    if rows_per_file < 1:
        raise UserError(f"--rows-per-file is {rows_per_file}; expected 1 or more.")
    from pix2pix_hub.devices import keep_freed_memory, process_state, relaunch_on_cpus, set_cpu_threads

    relaunch_on_cpus()
    from datasets import disable_progress_bars
    from tqdm import tqdm

    from pix2pix_hub.data.shards import CARD_NAME, LEFT_OUT_NAME, ShardPlan
    from pix2pix_hub.export import WEIGHTS_NAME
    from pix2pix_hub.hub.push import check_account
    from pix2pix_hub.inference.dataset import CARD, PLAN_NAME, Sources, translate_shards

    disable_progress_bars()  # one for each file
    state = process_state()
    set_cpu_threads(0)
    keep_freed_memory()
    if push is not None:
        push = check_account(push)
    folder = output or Path("translated") / str(push).rsplit("/", 1)[-1]
    sources = Sources.open(data)
    pipe = open_model(model, how, state.device)
    options = how.of_calls
    batch_size = options.pop("batch_size")  # changes no pixels
    rows = {name: len(part) for name, part in sources.found.splits.items()}
    if split is not None and split not in rows:
        raise UserError(f"--split {split}: {data.dataset} has {', '.join(rows)}.")
    settings = {
        "model": public_name(model),
        "weights": hashlib.sha256((pipe.folder / WEIGHTS_NAME).read_bytes()).hexdigest()[:16],
        "dataset": public_name(data.dataset),
        "fingerprint": sources.found.fingerprint,
        "options": options
        | {
            "dtype": str(pipe.dtype).removeprefix("torch."),
            "direction": data.direction,
            "columns": list(sources.found.columns),
        },
    }
    plan = ShardPlan(PLAN_NAME, settings, rows if split is None else {split: rows[split]}, rows_per_file)
    lock = None
    if state.is_main_process:
        if (folder / CARD_NAME).is_file():
            raise UserError(f"--output {folder} exists and is never overwritten: name another folder.")
        lock = plan.begin(folder)
    state.wait_for_everyone()
    own = plan.shards()[state.process_index :: state.num_processes]
    total = sum(len(numbers) for _, (_, numbers) in own)
    with tqdm(total=total, unit="image", disable=not state.is_main_process) as bar:
        translate_shards(pipe, sources, own, folder, bar.update, batch_size=batch_size, **options)
    state.wait_for_everyone()
    state.destroy_process_group()
    if lock is None:
        return 0
    with lock:
        target = "" if sources.swap is None else "; `target` is the true image"
        left_out = plan.finish(
            folder, lambda counts: CARD.format(**settings, name=folder.name, target=target, counts=counts)
        )
        say(f"{counted(sum(plan.splits.values()) - len(left_out), 'translated image')} in {folder}.")
        for line in left_out[:20]:
            say(f"  left out: {line['reason']}")
        if left_out:
            say(f"{len(left_out)} could not be translated; they are listed in {folder / LEFT_OUT_NAME}.")
        if push is not None:
            say(f"Pushed to {_push(folder, push, private)}")
    return 1 if left_out else 0


def _push(folder: Path, repo_id: str, private: bool) -> str:
    """Push `folder` as a data set, in one commit; what is on this machine stays.

    Returns:
        The data set's address.
    """
    from huggingface_hub import HfApi

    from pix2pix_hub.hub.push import push_errors

    api = HfApi()
    with push_errors(repo_id):
        api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id, folder_path=folder, repo_type="dataset", commit_message="Translated data set"
        )
    return f"{api.endpoint}/datasets/{repo_id}"
