"""What a process remembers of its stream, and what it does about bad pairs."""

from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from pix2pix_hub.data.shards import Span, StreamPlan
from pix2pix_hub.data.streaming import PairStream
from pix2pix_hub.data.transforms import PairTransform
from pix2pix_hub.training.stream_loader import StreamLoader
from pix2pix_hub.util import UserError

LENGTHS = (9, 4, 8)


@dataclass
class Rows:
    """Shards of rows that hold nothing but their place."""

    split: str = "train"
    bad: Container[tuple[int, int]] = field(default=())

    def rows(self, shard: int, start: int, stop: int | None) -> Iterator[dict[str, Any]]:
        end = LENGTHS[shard] if stop is None else stop
        return ({"place": (shard, row)} for row in range(start, end))

    def name(self, shard: int, row: int) -> str:
        return f"row {row} of shard {shard}"

    def decode(self, row: Any, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        if row["place"] in self.bad:
            raise UserError(f"{name} is bad.")
        image = torch.zeros(3, 32, 32, dtype=torch.uint8)
        return image, image


def loader(bad: Container[tuple[int, int]], skip: bool = True) -> StreamLoader:
    rows = Rows(bad=bad)
    plan = StreamPlan(tuple(Span(shard, 0, length) for shard, length in enumerate(LENGTHS)), seed=0, batch_size=2)
    stream = PairStream(rows, plan, rows.decode, PairTransform((32, 32), augment=False), shuffle_buffer=4)
    return StreamLoader(Accelerator(cpu=True), stream, num_workers=0, skip_bad_pairs=skip)


def test_the_bad_pairs_passed_are_kept_and_no_others() -> None:
    bad = {(0, 2), (1, 1), (2, 7)}
    whole = loader(bad)
    kept = [(set(whole.faults), whole.state_dict()) for _ in whole]  # after each batch
    assert [len(known) for known, _ in kept] == sorted(len(known) for known, _ in kept)
    assert kept[0][0] < kept[-1][0] == bad
    for number, (known, state) in enumerate(kept):
        again = loader(bad)
        again.load_state_dict(state)
        assert set(again.faults) == known
        assert len(list(again)) == len(kept) - number - 1
        assert set(again.faults) == bad


def test_a_pair_that_every_epoch_meets_is_kept_once() -> None:
    stream = loader({(1, 1)})
    for epoch in range(3):
        stream.set_epoch(epoch)
        list(stream)
    assert list(stream.faults) == [(1, 1)]


def test_where_bad_pairs_may_not_be_skipped_the_batch_before_one_tells() -> None:
    stream = loader({(1, 1)}, skip=False)
    seen = []
    with pytest.raises(UserError, match="row 1 of shard 1 is bad.*--resume --on-bad-pair skip"):
        for _ in stream:
            seen.append((stream.reason_ahead, stream.state_dict()))
    reasons = [reason for reason, _ in seen]
    assert len(reasons) > 1 and not any(reasons[:-1]) and "row 1 of shard 1" in str(reasons[-1])
    again = loader({(1, 1)}, skip=True)
    again.load_state_dict(seen[-1][1])
    assert len(list(again)) == 11 - len(seen)


def test_without_any_good_pair_there_is_no_training() -> None:
    with pytest.raises(UserError, match="row . of shard . is bad. Nor is any pair near it good"):
        next(iter(loader({(shard, row) for shard in range(3) for row in range(9)})))
