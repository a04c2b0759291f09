"""The `data` commands: a look at a data set before training, and any local form of pairs → a Hugging Face set.

pix2pix-hub data inspect path/to/pairs --direction BtoA
pix2pix-hub data build path/to/pairs --output path/to/dataset
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, DatasetDict, Features
from datasets import Image as ImageFeature

from pix2pix_hub.config import MakerOptions, PairOptions
from pix2pix_hub.data.decode import LISTED_FAULTS, Findings, PairDataset, examine, file_of, write_bad_pairs
from pix2pix_hub.data.findings import SAMPLED_PAIRS, Look
from pix2pix_hub.data.pairs import MAKER_NAME, FoundPairs, assign_splits, find_pairs
from pix2pix_hub.data.transforms import PairTransform
from pix2pix_hub.image.format import displayed, save_grid, to_model_range
from pix2pix_hub.image.write import encode, suffix_for
from pix2pix_hub.util import UserError, counted, write_folder_aside, write_json

FEATURES = Features({"source": ImageFeature(), "target": ImageFeature()})
SPLIT_NAMES = {"val": "validation", "valid": "validation", "dev": "validation"}  # what `datasets` calls them
SHARD_BYTES = 256 * 2**20  # of encoded images in one Parquet file
INDENT = " " * 11  # of lines that belong to the one before
CARD_HEAD = """---
task_categories:
- image-to-image
tags:
- pix2pix
- paired
---
# {name}

"""
CARD = (
    CARD_HEAD
    + """Pairs of images for paired image-to-image translation: columns `source` and `target`, lossless.

{counts}

Read from: {form}, {layout}. Stored pixels: source {source}, target {target}.

    {command}

Say here where the images come from and under which licence they may be used.
"""
)


@dataclass(frozen=True)
class Inspection:
    """A data set, all of whose pairs have been looked at."""

    found: FoundPairs
    parts: list[PairDataset]  # of each split, bad pairs included
    findings: Findings
    warnings: list[str] | None = None  # what may spoil training, in sentences; None: not looked for

    @classmethod
    def of(cls, request: PairOptions, *, warn: bool = False) -> Inspection:
        """Decode every pair of every split once, and look for what may spoil training where `warn` says so."""
        found = find_pairs(request)
        parts = [found.pairs(split, request.swap, least=request.least_size) for split in found.splits]
        look = Look(parts, _held_out(found, request), request) if warn else None
        findings = examine(parts, request, names=found.class_names, visit=look)
        warnings = [*findings.narrow, *look.warnings([findings.source, findings.target])] if look else None
        return cls(found, parts, findings, warnings)

    def describe(self) -> str:
        """Describe it in several lines, for a person."""
        counts = ", ".join(f"{len(part)} {part.split}" for part in self.parts)
        sizes = self.findings.sizes.most_common()
        shown = ", ".join(f"{height}x{width} ({count})" for (height, width), count in sizes[:5])
        more = f", and {len(sizes) - 5} more" if len(sizes) > 5 else ""
        this, other = ("BtoA", "AtoB") if self.parts[0].swap else ("AtoB", "BtoA")
        lines = [
            f"form       {self.found.form}: {counts}",
            f"direction  {this}: {' → '.join(self.parts[0].sides)}",
            f"sizes      {shown}{more} (height x width, pairs)",
        ]
        # colours that tell classes apart, or ink and paper: those of a street map, made for the eye, are mostly neither
        plain = sum(entry.share for entry in self.findings.target.palette if _is_plain(entry.color))
        if plain > 0.5 and not self.findings.source.palette:
            drawn = f"{INDENT}makes drawings or label maps of pictures; for pictures of those: --direction {other}"
            lines.insert(2, drawn)
        for side, stored in (("source", self.findings.source), ("target", self.findings.target)):
            note = f", palette of {counted(len(stored.palette), 'colour')}" if stored.palette else ", no palette"
            if stored.mode in ("channels", "rgba"):
                drawn = "are channels 1, 2, 3 as red, green, blue" if stored.channels >= 3 else "is channel 1 as gray"
                note = f", drawn {drawn}"
            cells = [f"#{bytes(entry.color).hex()} {entry.share:5.1%} {entry.name or ''}" for entry in stored.palette]
            rows = ["   ".join(cells[start : start + 4]).rstrip() for start in range(0, len(cells), 4)]
            lines += [f"{side}     {stored.describe()}{note}", *(INDENT + row for row in rows)]
        if self.found.ignored:
            lines.append(f"ignored    {self.found.ignored}")
        faults = self.findings.faults
        lines.append(f"bad pairs  {len(faults) or 'none'}")
        lines += [f"{INDENT}{fault.reason}" for fault in faults[:LISTED_FAULTS]]
        if self.warnings is not None:
            count = sum(map(len, self.parts))
            looked = f" (shifts and classes: {SAMPLED_PAIRS} of {count} pairs, drawn at random, were looked at)"
            lines.append(f"warnings   {len(self.warnings) or 'none'}{looked if count > SAMPLED_PAIRS else ''}")
            lines += [f"{INDENT}{warning}" for warning in self.warnings]
        return "\n".join(lines)


def _is_plain(color: tuple[int, int, int]) -> bool:
    """Vivid, black or white."""
    return max(color) - min(color) >= 128 or max(color) < 32 or min(color) >= 248


def _held_out(found: FoundPairs, request: PairOptions) -> set[tuple[int, int]]:
    """Places (number of the split, row) of what does not train: other splits than "train", or what is set aside."""
    splits = [*found.splits]
    if len(splits) > 1:
        others = [(part, split) for part, split in enumerate(splits) if split != request.train_split]
        return {(part, row) for part, split in others for row in range(len(found.splits[split]))}
    with suppress(UserError):  # too few pairs to set some aside
        return {(0, row) for row in assign_splits(found, request)[1].indices}
    return set()


# --- inspect


def inspect_pairs(request: PairOptions, grid: Path | None = None, rows: int = 6) -> Inspection:
    """Decode every pair of every split once, and draw the first few.

    Args:
        request: which pairs; `image_size` and `resize` say how they are drawn.
        grid: where to write a picture of `rows` rows: source | target | both laid over each other, in which edges that
            do not meet are seen at once; None: nowhere.
        rows: pairs in the picture.

    Raises:
        UserError: no form fits, or not a single pair is sound.
    """
    seen = Inspection.of(replace(request, on_bad_pair="skip"), warn=True)
    if grid is not None:
        formats = {"source": seen.findings.source, "target": seen.findings.target}
        fit = PairTransform(request.image_height_width, augment=False, resize=request.resize, formats=formats)
        parts = [seen.findings.applied_to(part) for part in seen.parts]
        sound = [(part, index) for part in parts for index in range(len(part))]
        drawn = []
        for part, index in sound[:: max(1, len(sound) // rows)][:rows]:
            pair = fit(*part[index], epoch=0, index=index)
            source, target = (to_model_range(displayed(pair[side], stored)) for side, stored in formats.items())
            drawn.append((source, target, (source + target) / 2.0))
        save_grid(drawn, grid, titles=("source", "target", "both"))
    return seen


# --- build


@dataclass(frozen=True)
class BuiltPairs:
    """A data set that is ready to be written or pushed."""

    splits: DatasetDict
    card: str
    seen: Inspection
    shards: dict[str, int]  # Parquet files of each split: one for each `SHARD_BYTES`
    maker: MakerOptions | None  # how the sources were made from the targets


def build_pairs(request: PairOptions, name: str) -> BuiltPairs:
    """Read all splits of `request`, check every pair, and encode both sides without loss.

    Args:
        request: which pairs; `direction` says what becomes `source`.
        name: what the card calls the data set: a folder or `user/name`.

    Raises:
        UserError: no form fits, bad pairs, or pixels that no image column holds.
    """
    if request.rasters:
        raise UserError(f"{request.dataset}: of rasters `pix2pix-hub data tile` makes a data set.")
    seen = Inspection.of(request)
    splits = DatasetDict()
    for part in map(seen.findings.applied_to, seen.parts):
        split = SPLIT_NAMES.get(part.split, part.split)
        if split in splits:
            raise UserError(f"{request.dataset} has two splits that would both be called {split}: rename one.")
        splits[split] = Dataset.from_generator(
            _rows, features=FEATURES, gen_kwargs={"pairs": part}, keep_in_memory=True, cache_dir=None, split=split
        )
    card = CARD.format(
        name=name.rsplit("/", 1)[-1],
        command=train_command(name),
        counts=", ".join(f"{counted(len(rows), 'pair')} in `{split}`" for split, rows in splits.items()) + ".",
        form=seen.found.form,
        layout=" → ".join(seen.parts[0].sides),
        source=seen.findings.source.describe(),
        target=seen.findings.target.describe(),
    )
    shards = {split: max(1, -(-rows.data.nbytes // SHARD_BYTES)) for split, rows in splits.items()}
    return BuiltPairs(splits, card, seen, shards, None if request.swap else seen.found.maker)


def train_command(dataset: str) -> str:
    """Give the command that trains on the set."""
    return shlex.join(["pix2pix-hub", "train", "--dataset", dataset])


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
            shards = built.shards[split]
            for index in range(shards):
                path = partial / "data" / f"{split}-{index:05d}-of-{shards:05d}.parquet"
                rows.shard(shards, index, contiguous=True).to_parquet(path)
        (partial / "README.md").write_text(built.card)
        if built.maker is not None:
            write_json(partial / MAKER_NAME, {"maker": built.maker.to_dict()})
        if built.seen.findings.faults:
            write_bad_pairs(partial, built.seen.findings.faults)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def push_dataset(built: BuiltPairs, repo_id: str, *, private: bool = False) -> str:
    """Push Parquet shards and the card to the Hub; its address.

    Raises:
        UserError: the Hub refused, or cannot be reached.
    """
    from huggingface_hub import DatasetCard, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        built.splits.push_to_hub(repo_id, private=private, num_shards=built.shards)
        if built.maker is not None:
            content = json.dumps({"maker": built.maker.to_dict()}, indent=2).encode()
            HfApi().upload_file(path_or_fileobj=content, path_in_repo=MAKER_NAME, repo_id=repo_id, repo_type="dataset")
        card = DatasetCard.load(repo_id)  # `datasets` has written the splits' metadata into it
        card.text = DatasetCard(built.card).text
        card.data.task_categories, card.data.tags = ["image-to-image"], ["pix2pix", "paired"]
        card.push_to_hub(repo_id)
    except (HfHubHTTPError, OSError) as error:
        raise UserError(
            f"--push {repo_id}: the Hub refused ({error}). Nothing local was changed; try again."
        ) from error
    return f"{datasets.config.HF_ENDPOINT}/datasets/{repo_id}"


def _rows(pairs: PairDataset) -> Iterator[dict[str, Any]]:
    for index in range(len(pairs)):
        source, target = pairs.read(index)
        stem = Path(file_of(pairs.row(index), pairs.columns[0]) or pairs.name(index)).stem
        yield {
            side: {"bytes": encode(image, pairs.name(index)), "path": f"{stem}{suffix_for(image)}"}
            for side, image in (("source", source), ("target", target))
        }
