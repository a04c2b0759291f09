"""`pix2pix-hub translate-dataset`, also under `accelerate launch -m pix2pix_hub.cli`."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from pix2pix_hub.commands.output import say
from pix2pix_hub.commands.translate import Precision
from pix2pix_hub.errors import UserError
from pix2pix_hub.files import public_name
from pix2pix_hub.wording import counted

if TYPE_CHECKING:
    from pix2pix_hub.data.request import PairRequest
    from pix2pix_hub.inference.dataset import Plan, Sources

LONGEST_WAIT = timedelta(days=30)  # of the first process to be done for the last


def translate_dataset(
    model: Positional[str],
    dataset: Positional[str],
    output: Path | None = None,
    push: str | None = None,
    private: bool = False,
    split: str | None = None,
    direction: Literal["AtoB", "BtoA"] = "AtoB",
    source_column: str | None = None,
    target_column: str | None = None,
    rows_per_file: int = 64,
    stochastic: bool = False,
    seed: int | None = None,
    tile_size: int = 1024,
    batch_size: int | None = None,
    dtype: Precision = "auto",
    compile: bool = False,
    revision: str | None = None,
    dataset_revision: str | None = None,
) -> int:
    """Translate a data set into one with columns `source`, `generated` and, where there is one, `target`.

    Several processes, on GPUs or CPUs: `accelerate launch --num_processes 4 -m pix2pix_hub.cli translate-dataset …`.
    Stopped, the same command goes on where it was, on any number of processes.

    Args:
        model: Export, run folder, or Hub id (user/name, user/name@revision).
        dataset: Folder, file or Hub id.
        output: Folder to write Parquet files and a card to.
        push: Data set on the Hub to push the result to, user/name; without --output, the folder is translated/name.
        private: Make the data set on the Hub private.
        split: The only split to translate.
        direction: Which side of pairs is the source.
        source_column: Image column A; alone, the images to translate.
        target_column: Image column B.
        rows_per_file: Rows of a Parquet file, the unit that a process writes.
        stochastic: Leave dropout on; needs a seed.
        seed: Of the dropout.
        tile_size: Height or width in pixels beyond which an image is made in tiles.
        batch_size: Images of one size that are run together; by default 1 on a CPU, else up to 32.
        dtype: Numbers to compute in; auto: bf16 or fp16 where the device has units for it, else float32.
        compile: Compile the network for each size of image: some ten seconds each, pays for hundreds of one size.
        revision: Branch, tag or commit of a Hub model.
        dataset_revision: Branch, tag or commit of a Hub data set.
    """
    if output is None and push is None:
        raise UserError("name where the data set goes: --output FOLDER, --push user/name or both.")
    if stochastic and seed is None:
        raise UserError("--stochastic needs --seed here, so that a run that was stopped goes on with the same.")
    if rows_per_file < 1:
        raise UserError(f"--rows-per-file is {rows_per_file}; expected 1 or more.")
    from pix2pix_hub.launcher import follow_launcher

    follow_launcher()
    from datasets import disable_progress_bars
    from tqdm import tqdm

    from pix2pix_hub.devices import keep_freed_memory, process_state, set_cpu_threads
    from pix2pix_hub.export import WEIGHTS_NAME
    from pix2pix_hub.inference.dataset import Plan, Sources, check_plan, start, translate_shards
    from pix2pix_hub.inference.pipeline import Pix2PixPipeline

    disable_progress_bars()  # one for each file
    state = process_state(timeout=LONGEST_WAIT)
    set_cpu_threads(0, state.num_processes)
    keep_freed_memory()
    if push is not None:
        push = _checked_repo(push)
    folder = output or Path("translated") / str(push).rsplit("/", 1)[-1]
    request = _pair_request(dataset, direction, source_column, target_column, dataset_revision)
    sources = Sources.open(request, dataset, source_column, dataset_revision)
    pipe = Pix2PixPipeline.from_pretrained(model, revision=revision, device=state.device, dtype=dtype, compile=compile)
    options: dict[str, Any] = dict(stochastic=stochastic, seed=seed, tile_size=tile_size)
    pipe([], batch_size=batch_size, **options)  # refuses what does not go together before anything is written
    plan = Plan(
        public_name(model),
        hashlib.sha256((pipe.folder / WEIGHTS_NAME).read_bytes()).hexdigest()[:16],
        public_name(dataset),
        sources.found.fingerprint,
        _chosen_splits(sources, split, dataset),
        rows_per_file,
        options
        | {
            "dtype": str(pipe.dtype).removeprefix("torch."),
            "direction": direction,
            "columns": list(sources.found.columns),
        },
    )
    lock = start(plan, folder) if state.is_main_process else None
    state.wait_for_everyone()
    check_plan(plan, folder)
    own = plan.shards()[state.process_index :: state.num_processes]
    with tqdm(total=sum(len(shard.rows) for shard in own), unit="image", disable=not state.is_main_process) as bar:
        translate_shards(pipe, sources, own, folder, bar.update, batch_size=batch_size, **options)
    state.wait_for_everyone()
    state.destroy_process_group()
    if lock is None:
        return 0
    with lock:
        return _finish(plan, folder, sources.alone, push, private)


def _checked_repo(push: str) -> str:
    """The whole id. Raises `UserError` where there is no token that may write."""
    from pix2pix_hub.hub.push import check_account

    return check_account(push)


def _pair_request(
    dataset: str, direction: str, source_column: str | None, target_column: str | None, revision: str | None
) -> PairRequest | None:
    """None: a column of sources was named, and no target."""
    from pix2pix_hub.data.request import PairRequest

    if source_column is not None and target_column is None:
        return None
    return PairRequest(dataset, direction, source_column=source_column, target_column=target_column, revision=revision)


def _chosen_splits(sources: Sources, split: str | None, dataset: str) -> dict[str, int]:
    """Name → rows."""
    rows = {name: len(rows) for name, rows in sources.found.splits.items()}
    if split is not None and split not in rows:
        raise UserError(f"--split {split}: {dataset} has {', '.join(rows)}.")
    return {name: count for name, count in rows.items() if split in (None, name)}


def _finish(plan: Plan, folder: Path, alone: bool, push: str | None, private: bool) -> int:
    from pix2pix_hub.inference.dataset import finish

    left_out = finish(plan, folder, alone)
    say(f"{counted(sum(plan.splits.values()) - len(left_out), 'translated image')} in {folder}.")
    for line in left_out[:20]:
        say(f"  left out: {line['reason']}")
    if left_out:
        say(f"{len(left_out)} could not be translated; they are listed in {folder / 'left_out.jsonl'}.")
    if push is not None:
        say(f"Pushed to {_push(folder, push, private)}")
    return 1 if left_out else 0


def _push(folder: Path, repo_id: str, private: bool) -> str:
    """One commit; the address. What is on this machine stays."""
    from huggingface_hub import HfApi

    from pix2pix_hub.hub.push import as_push_error

    try:
        api = HfApi()
        api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id, folder_path=folder, repo_type="dataset", commit_message="Translated data set"
        )
    except Exception as error:
        raise as_push_error(error, repo_id) from error
    return f"{api.endpoint}/datasets/{repo_id}"
