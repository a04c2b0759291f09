"""What a process remembers of its stream, and what it does about bad pairs."""

from collections.abc import Callable, Collection
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from accelerate import Accelerator, PartialState
from run_results import Tiny
from sharded_sets import write_parquet

from pix2pix_hub.data.stream import open_stream
from pix2pix_hub.training import loaders
from pix2pix_hub.training.loaders import TrainLoader, open_together
from pix2pix_hub.util import UserError

LENGTHS = (9, 4, 8)
NUMBERS = [(shard, row) for shard, length in enumerate(LENGTHS) for row in range(length)]
Load = Callable[..., TrainLoader]


@pytest.fixture
def load(tiny: Tiny, tmp_path: Path, datasets_cache: Path) -> Load:
    """`load(bad places)` → a loader of batches of two."""

    def make(bad: Collection[tuple[int, int]], on_bad_pair: str = "skip") -> TrainLoader:
        numbers = [NUMBERS.index(place) for place in bad]
        folder = write_parquet(tmp_path / f"without_{len(numbers)}", LENGTHS, bad=numbers)
        options = dict(dataset=str(folder), streaming=True, max_train_pairs=None, batch_size=2, num_workers=0)
        config = tiny(**options, on_bad_pair=on_bad_pair, color_jitter=0.0)
        findings = open_stream(tiny(**options | {"dataset": str(write_parquet(tmp_path / "sound", LENGTHS))})).findings
        pairs = open_stream(config, 4, findings=findings)  # nobody has looked at the first
        return TrainLoader(Accelerator(cpu=True), config, pairs)

    return make


def test_the_bad_pairs_passed_are_kept_and_no_others(load: Load) -> None:
    bad = {(0, 2), (1, 1), (2, 7)}
    whole = load(bad)
    kept = [(set(whole.faults), whole.state_dict()) for _ in whole.rest_of_epoch(0, 0)]  # after each batch
    assert [len(known) for known, _ in kept] == sorted(len(known) for known, _ in kept)
    assert kept[0][0] < kept[-1][0] == bad
    for number, (known, state) in enumerate(kept):
        again = load(bad)
        again.load_state_dict(state)
        assert set(again.faults) == known
        assert len(list(again.rest_of_epoch(0, number + 1))) == len(kept) - number - 1
        assert set(again.faults) == bad


def test_a_pair_that_every_epoch_meets_is_kept_once(load: Load) -> None:
    loader = load({(1, 1)})
    for epoch in range(3):
        list(loader.rest_of_epoch(epoch, 0))
    assert list(loader.faults) == [(1, 1)]


def test_where_bad_pairs_may_not_be_skipped_the_batch_before_one_tells(load: Load) -> None:
    loader = load({(1, 1)}, on_bad_pair="stop")
    reasons = []
    with pytest.raises(UserError, match="row 1 of shard 1.*--resume --on-bad-pair skip"):
        for _ in loader.rest_of_epoch(0, 0):
            reasons.append(loader.reason_ahead)
    assert len(reasons) > 1 and not any(reasons[:-1]) and "row 1 of shard 1" in str(reasons[-1])
    assert len(list(load({(1, 1)}).rest_of_epoch(0, len(reasons)))) == 11 - len(reasons)


def test_without_any_good_pair_there_is_no_training(load: Load) -> None:
    with pytest.raises(UserError, match="row . of shard . .*Nor is any pair near it good"):
        next(iter(load(NUMBERS).rest_of_epoch(0, 0)))


@pytest.mark.parametrize(
    ("megabytes", "workers", "words"), [(64, 4, None), (0.3, 4, "--num-workers 4: .*Type --num-workers 2,")]
)
def test_more_workers_than_shared_memory_has_room_for_are_refused(
    megabytes: float, workers: int, words: str | None, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch of two 8-bit pairs of 64x64 takes 49 kB; a worker has two on their way, and two are in use."""
    monkeypatch.setattr(loaders.shutil, "disk_usage", lambda _: SimpleNamespace(free=round(megabytes * 1e6)))
    config = tiny(image_size="64", num_workers=workers, jitter_scale=1.0)
    accelerator = Accelerator(cpu=True)
    pairs = open_together(config, PartialState(), Path())
    with nullcontext() if words is None else pytest.raises(UserError, match=words):
        assert TrainLoader(accelerator, config, pairs).workers == workers
