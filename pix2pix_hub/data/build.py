"""Any local form of pairs → a Hugging Face data set: columns `source` and `target`, splits, Parquet shards, a card.

pix2pix-hub data build path/to/pairs --output path/to/dataset
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, DatasetDict, Features
from datasets import Image as ImageFeature

from pix2pix_hub.config import PairOptions
from pix2pix_hub.data.bad_pairs import write_bad_pairs
from pix2pix_hub.data.examine import Findings, examine
from pix2pix_hub.data.pair_dataset import PairDataset
from pix2pix_hub.data.pairs import find_pairs
from pix2pix_hub.data.records import RecordDecoder, file_of
from pix2pix_hub.data.transforms import has_colors
from pix2pix_hub.image.format import PixelFormat
from pix2pix_hub.image.write import encode, suffix_for
from pix2pix_hub.util import UserError, counted, write_folder_aside

FEATURES = Features({"source": ImageFeature(), "target": ImageFeature()})
SPLIT_NAMES = {"val": "validation", "valid": "validation", "dev": "validation"}  # what `datasets` calls them
SHARD_BYTES = 256 * 2**20  # of encoded images in one Parquet file
CARD = """---
task_categories:
- image-to-image
tags:
- pix2pix
- paired
---
# {name}

Pairs of images for paired image-to-image translation: columns `source` and `target`, lossless.

{counts}

Read from: {form}, {layout}. Stored pixels: source {source}, target {target}.

    {command}

Say here where the images come from and under which licence they may be used.
"""


@dataclass(frozen=True)
class BuiltPairs:
    """A data set that is ready to be written or pushed."""

    splits: DatasetDict
    card: str
    findings: Findings
    left_aside: str = ""  # what lies beside the images and is none of them


def build_pairs(request: PairOptions, name: str) -> BuiltPairs:
    """Read all splits of `request`, check every pair, and encode both sides without loss.

    Args:
        request: which pairs; `direction` says what becomes `source`.
        name: what the card calls the data set: a folder or `user/name`.

    Raises:
        UserError: no form fits, bad pairs, or pixels that no image column holds.
    """
    found = find_pairs(request)
    decoder = RecordDecoder(found.columns, request.swap)
    parts = [PairDataset(rows, range(len(rows)), decoder, split) for split, rows in found.splits.items()]
    findings = examine(parts, request, everything=True, skip=request.on_bad_pair == "skip")
    splits = DatasetDict()
    for part in (findings.applied_to(part) for part in parts):
        split = SPLIT_NAMES.get(part.split, part.split)
        if split in splits:
            raise UserError(f"{request.dataset} has two splits that would both be called {split}: rename one.")
        splits[split] = Dataset.from_generator(
            _rows, features=FEATURES, gen_kwargs={"pairs": part}, keep_in_memory=True, cache_dir=None, split=split
        )
    source, target = decoder.sides
    card = CARD.format(
        name=name.rsplit("/", 1)[-1],
        command=train_command(name, findings.source),
        counts=", ".join(f"{counted(len(rows), 'pair')} in `{split}`" for split, rows in splits.items()) + ".",
        form=found.form,
        layout=f"{source} → {target}",
        source=findings.source.describe(),
        target=findings.target.describe(),
    )
    return BuiltPairs(splits, card, findings, found.left_aside)


def train_command(dataset: str, source: PixelFormat) -> str:
    """What trains on the set; colour jitter, on by default, is not for all kinds of images."""
    command = ["accelerate", "launch", "train_accelerate.py", "--dataset", dataset]
    return shlex.join(command if has_colors(source) else [*command, "--color-jitter", "0"])


def write_dataset(built: BuiltPairs, folder: Path) -> list[Path]:
    """Write `data/<split>-00000-of-00001.parquet`, … and `README.md`, whole or not at all; the files written.

    Raises:
        UserError: the folder exists.
    """
    if folder.exists():
        raise UserError(f"--output {folder} exists and is never overwritten: name another folder.")
    with write_folder_aside(folder) as partial:
        (partial / "data").mkdir()
        for split, rows in built.splits.items():
            shards = shard_count(rows)
            for index in range(shards):
                path = partial / "data" / f"{split}-{index:05d}-of-{shards:05d}.parquet"
                rows.shard(shards, index, contiguous=True).to_parquet(path)
        (partial / "README.md").write_text(built.card)
        if built.findings.faults:
            write_bad_pairs(partial, built.findings.faults)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def push_dataset(built: BuiltPairs, repo_id: str, *, private: bool = False) -> str:
    """Push Parquet shards and the card to the Hub; its address.

    Raises:
        UserError: the Hub refused, or cannot be reached.
    """
    from huggingface_hub import DatasetCard
    from huggingface_hub.errors import HfHubHTTPError

    try:
        shards = {split: shard_count(rows) for split, rows in built.splits.items()}
        built.splits.push_to_hub(repo_id, private=private, num_shards=shards)
        card = DatasetCard.load(repo_id)  # `datasets` has written the splits' metadata into it
        card.text = DatasetCard(built.card).text
        card.data.task_categories, card.data.tags = ["image-to-image"], ["pix2pix", "paired"]
        card.push_to_hub(repo_id)
    except (HfHubHTTPError, OSError) as error:
        raise UserError(
            f"--push {repo_id}: the Hub refused ({error}). Nothing local was changed; try again."
        ) from error
    return f"{datasets.config.HF_ENDPOINT}/datasets/{repo_id}"


def shard_count(rows: Dataset) -> int:
    """Parquet files for a split: one for each `SHARD_BYTES`."""
    return max(1, -(-rows.data.nbytes // SHARD_BYTES))


def _rows(pairs: PairDataset) -> Iterator[dict[str, Any]]:
    for index in range(len(pairs)):
        row = pairs.row(index)
        source, target = pairs.decoder.read(row, pairs.name(index))
        stem = Path(file_of(row, pairs.columns[0]) or pairs.name(index)).stem
        yield {
            side: {"bytes": encode(image, pairs.name(index)), "path": f"{stem}{suffix_for(image)}"}
            for side, image in (("source", source), ("target", target))
        }
