"""Sets of pairs in shards, each image in the one colour that tells which pair it is."""

import tarfile
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path

import datasets
from PIL import Image

UNEVEN = (30, 1, 25, 40, 5)  # 101 pairs
SIZE = (32, 32)


def png(*color: int) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", SIZE, color).save(buffer, format="PNG")
    return buffer.getvalue()


def pairs_of(lengths: Sequence[int]) -> Iterator[list[dict[str, bytes]]]:
    """For each shard, source (number, 0, 0) and target (0, number, 0) of each pair."""
    number = 0
    for length in lengths:
        yield [{"source": png(n, 0, 0), "target": png(0, n, 0)} for n in range(number, number + length)]
        number += length


def write_parquet(folder: Path, lengths: Sequence[int] = UNEVEN, validation: int = 3) -> Path:
    """Shards of `train` and one of `validation` (none with 0)."""
    features = datasets.Features({"source": datasets.Image(), "target": datasets.Image()})
    folder.mkdir(parents=True, exist_ok=True)

    def write(name: str, rows: list[dict[str, bytes]]) -> None:
        images = [{side: {"bytes": row[side], "path": None} for side in row} for row in rows]
        datasets.Dataset.from_list(images, features=features).to_parquet(folder / name)

    for number, rows in enumerate(pairs_of(lengths)):
        write(f"train-{number:05}-of-{len(lengths):05}.parquet", rows)
    if validation:
        write("validation-00000-of-00001.parquet", next(pairs_of([validation])))
    return folder


def write_tars(folder: Path, lengths: Sequence[int] = UNEVEN) -> Path:
    """WebDataset: NUMBER.source.png and NUMBER.target.png in each tar."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(pairs_of(lengths)):
        with tarfile.open(folder / f"train-{number:05}.tar", "w") as archive:
            for row_number, row in enumerate(rows):
                for side, content in row.items():
                    member = tarfile.TarInfo(f"{number}_{row_number:04}.{side}.png")
                    member.size = len(content)
                    archive.addfile(member, BytesIO(content))
    return folder
