"""Sets of pairs in shards, each image in the one colour that tells which pair it is."""

import tarfile
from collections.abc import Container, Iterator, Sequence
from io import BytesIO
from itertools import count, islice
from pathlib import Path

import datasets
from PIL import Image

UNEVEN = (30, 1, 25, 40, 5)  # 101 pairs
SIZE = (32, 32)
NO_IMAGE = b"no image"


def png(*color: int) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", SIZE, color).save(buffer, format="PNG")
    return buffer.getvalue()


def pairs_of(lengths: Sequence[int], bad: Container[int] = ()) -> Iterator[list[dict[str, bytes]]]:
    """For each shard, source (number, 0, 0) and target (0, number, 0) of each pair; the sources of `bad` are none."""
    numbers = count()
    for length in lengths:
        shard = list(islice(numbers, length))
        yield [{"source": NO_IMAGE if n in bad else png(n, 0, 0), "target": png(0, n, 0)} for n in shard]


def write_parquet(folder: Path, lengths: Sequence[int] = UNEVEN, validation: int = 3, bad: Container[int] = ()) -> Path:
    """Shards of `train` and one of `validation` (none with 0)."""
    features = datasets.Features({"source": datasets.Image(), "target": datasets.Image()})
    folder.mkdir(parents=True, exist_ok=True)

    def write(name: str, rows: list[dict[str, bytes]]) -> None:
        images = [{side: {"bytes": row[side], "path": None} for side in row} for row in rows]
        datasets.Dataset.from_list(images, features=features).to_parquet(folder / name)

    for number, rows in enumerate(pairs_of(lengths, bad)):
        write(f"train-{number:05}-of-{len(lengths):05}.parquet", rows)
    if validation:
        write("validation-00000-of-00001.parquet", next(pairs_of([validation])))
    return folder


def write_tars(folder: Path, lengths: Sequence[int] = UNEVEN, bad: Container[int] = ()) -> Path:
    """WebDataset: NUMBER.source.png and NUMBER.target.png in each tar."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(pairs_of(lengths, bad)):
        with tarfile.open(folder / f"train-{number:05}.tar", "w") as archive:
            for row_number, row in enumerate(rows):
                for side, content in row.items():
                    member = tarfile.TarInfo(f"{number}_{row_number:04}.{side}.png")
                    member.size = len(content)
                    archive.addfile(member, BytesIO(content))
    return folder
