"""`pix2pix-hub data inspect` and `data build`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from pix2pix_hub.commands.output import say
from pix2pix_hub.config import parse_image_size
from pix2pix_hub.errors import UserError
from pix2pix_hub.wording import counted

Direction = Literal["AtoB", "BtoA"]
Mode = Literal["auto", "gray", "rgb", "rgba", "labels"]


def data_inspect(
    source: Positional[str],
    direction: Direction = "AtoB",
    image_size: str = "256",
    resize: Literal["exact", "crop", "pad"] = "exact",
    grid: Path = Path("pairs.png"),
    rows: int = 6,
    source_column: str | None = None,
    target_column: str | None = None,
    source_mode: Mode = "auto",
    target_mode: Mode = "auto",
    revision: str | None = None,
) -> int:
    """Say what a set of pairs is, and draw some of them, before anything is trained.

    The exit status is 1 where it has bad pairs.

    Args:
        source: Folder, file, Hub id, or `synthetic`.
        direction: Which side is the source.
        image_size: Height and width in pixels that the pairs are drawn at, as training would see them.
        resize: What happens to images of another shape, as in training.
        grid: Picture to write: source | target | both laid over each other.
        rows: Pairs in the picture (pairs).
        source_column: Image column (or folder) A, where its name is not a known one.
        target_column: Image column (or folder) B, where its name is not a known one.
        source_mode: How to read the source's pixels.
        target_mode: How to read the target's pixels.
        revision: Branch, tag or commit of a Hub data set.
    """
    from pix2pix_hub.data.inspect import inspect_pairs
    from pix2pix_hub.data.request import PairRequest

    if rows < 1:
        raise UserError(f"--rows {rows} draws nothing: give 1 or more.")
    request = PairRequest(
        source,
        direction,
        parse_image_size(image_size),
        source_column,
        target_column,
        source_mode,
        target_mode,
        revision,
    )
    found = inspect_pairs(request, grid, rows, resize)
    say(found.describe())
    say(f"picture    {grid}: source | target | both laid over each other")
    return 1 if found.faults else 0


def data_build(
    folder: Positional[str],
    output: Path | None = None,
    push: str | None = None,
    private: bool = False,
    direction: Direction = "AtoB",
    on_bad_pair: Literal["stop", "skip"] = "stop",
    source_column: str | None = None,
    target_column: str | None = None,
) -> None:
    """Turn any local form of pairs into a Hugging Face data set with columns `source` and `target`.

    Args:
        folder: Folder or file of pairs.
        output: Folder to write Parquet shards and a card to.
        push: Data set on the Hub to push to, user/name.
        private: Make the data set on the Hub private.
        direction: Which side becomes `source`.
        on_bad_pair: What to do about pairs that cannot be used.
        source_column: Image column (or folder) A, where its name is not a known one.
        target_column: Image column (or folder) B, where its name is not a known one.
    """
    if (output is None) == (push is None):
        raise UserError("name where the data set goes: either --output FOLDER or --push user/name.")
    from pix2pix_hub.data.build import build_pairs, push_dataset, train_command, write_dataset
    from pix2pix_hub.data.request import PairRequest

    if output is not None and output.exists():
        raise UserError(f"--output {output} exists and is never overwritten: name another folder.")
    if push is not None:
        from pix2pix_hub.hub.push import check_account

        push = check_account(push)
    request = PairRequest(folder, direction, source_column=source_column, target_column=target_column)
    built = build_pairs(request, push or str(output), skip_bad_pairs=on_bad_pair == "skip")
    counts = ", ".join(f"{len(rows)} {split}" for split, rows in built.splits.items())
    left_out = f"; {counted(len(built.findings.faults), 'bad pair')} left out" if built.findings.faults else ""
    if built.left_aside:
        say(f"Left aside: {built.left_aside}.")
    if output is not None:
        files = write_dataset(built, output)
        say(f"{counts} pairs{left_out} in {counted(len(files), 'file')} under {output}.")
        say(f"Train on it: {train_command(str(output), built.findings.source)}")
    elif push is not None:
        say(f"{counts} pairs{left_out} pushed to {push_dataset(built, push, private=private)}")
