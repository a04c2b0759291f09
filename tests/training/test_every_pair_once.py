"""Two and three gloo processes over 101 pairs: in an epoch each pair is seen once, by one of them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from launching import TINY, environment
from sharded_sets import UNEVEN, write_parquet

WORKER = Path(__file__).with_name("loader_worker.py")
PAIRS = 101
Epochs = list[list[list[int]]]  # of a process: epoch, batch, index of a pair


def loaded(folder: Path, processes: int, *options: str) -> list[Epochs]:
    """What each of so many processes got from its training loader."""
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", str(processes)]
    command = [sys.executable, *launch, str(WORKER), str(folder), *TINY, *options]
    done = subprocess.run(command, env=environment(), timeout=300, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{processes}_{rank}.json").read_text()) for rank in range(processes)]


def assert_each_once(ranks: list[Epochs], expected: set[int]) -> None:
    for epoch in range(2):
        seen = [index for rank in ranks for batch in rank[epoch] for index in batch]
        assert len(seen) == len(expected)
        assert set(seen) == expected
        assert len({len(rank[epoch]) for rank in ranks}) == 1, "not the same number of steps"
        assert all(batch for rank in ranks for batch in rank[epoch])
    assert [rank[0] for rank in ranks] != [rank[1] for rank in ranks], "the same order in both epochs"


@pytest.mark.parametrize("processes,batch_size", [(2, 1), (3, 2)])
def test_map_style(processes: int, batch_size: int, tmp_path: Path) -> None:
    options = ["--max-train-pairs", str(PAIRS), "--batch-size", str(batch_size)]
    assert_each_once(loaded(tmp_path, processes, *options), set(range(PAIRS)))


@pytest.mark.parametrize("processes,batch_size,workers", [(2, 2, 2), (3, 1, 0)])
def test_streaming(processes: int, batch_size: int, workers: int, tmp_path: Path) -> None:
    folder = write_parquet(tmp_path / "set", UNEVEN)
    options = ["--streaming", "--dataset", str(folder), "--batch-size", str(batch_size), "--num-workers", str(workers)]
    options += ["--max-train-pairs", str(PAIRS)]
    assert_each_once(loaded(tmp_path, processes, *options, "--shuffle-buffer", "8"), set(range(PAIRS)))
