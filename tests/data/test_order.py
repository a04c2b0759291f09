"""Pairs dealt to processes: a partition of the epoch, whatever the numbers, of sets at hand and of streams alike."""

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st

from pix2pix_hub.data.order import BlockSampler, Deal, EpochSampler, ProcessBatches, cut
from pix2pix_hub.data.stream import ShardPlaces
from pix2pix_hub.util import UserError

PAIRS, PROCESSES, BATCH_SIZES = st.integers(1, 200), st.integers(1, 9), st.integers(1, 8)


def test_an_epoch_is_shuffled_by_seed_and_epoch_alone() -> None:
    def order(epoch: int, **options: Any) -> list[tuple[int, int]]:
        sampler = EpochSampler(50, **options)
        sampler.set_epoch(epoch)
        assert len(sampler) == 50
        return list(sampler)

    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = order(0, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(1)
    assert order(0, seed=1) == first != sorted(first) == [(0, i) for i in range(50)]
    assert {epoch for epoch, _ in order(6, seed=1)} == {6}
    assert [i for _, i in order(1, seed=1)] != [i for _, i in first] != [i for _, i in order(0, seed=2)]
    assert order(3, shuffle=False) == [(3, i) for i in range(50)]


@given(PAIRS, PROCESSES, BATCH_SIZES, st.integers(1, 5))
@example(101, 2, 1, 1)  # one pair left for two processes, nothing to share it with
@example(97, 3, 2, 1)  # one left for three: shared with the step before
@example(101, 3, 4, 1)
def test_every_pair_is_dealt_once_in_steps_that_all_take(
    pairs: int, processes: int, batch_size: int, every: int
) -> None:
    assume(pairs >= processes)
    deal = Deal(pairs, processes, batch_size)
    shares = [[deal.share(step, process) for process in range(processes)] for step in range(len(deal))]
    assert [place for step in shares for share in step for place in share] == list(range(pairs))
    assert {len(share) for step in shares for share in step} <= {*range(1, max(batch_size, 1 + (processes > 1)) + 1)}
    for process in range(processes):
        for first in range(every):
            assert deal.count(process, first, every) == sum(len(step[process]) for step in shares[first::every])


@given(PAIRS, BATCH_SIZES)
def test_one_process_takes_plain_batches(pairs: int, batch_size: int) -> None:
    sampler = EpochSampler(pairs, seed=3)
    keys = list(sampler)
    expected = [keys[start : start + batch_size] for start in range(0, pairs, batch_size)]
    assert list(ProcessBatches(sampler, batch_size)) == expected


def test_the_pairs_of_the_short_end_change_with_the_epoch() -> None:
    sampler = EpochSampler(101, seed=0)
    last: Counter[int] = Counter()
    for epoch in range(20):
        sampler.set_epoch(epoch)
        batches = [list(ProcessBatches(sampler, 4, 3, process)) for process in range(3)]
        assert {len(rank) for rank in batches} == {9}
        last.update(index for rank in batches for _, index in rank[-1])
    assert last.most_common(1)[0][1] < 6  # of 20 epochs with 5 of 101 pairs each


def test_fewer_pairs_than_processes_is_refused() -> None:
    with pytest.raises(UserError, match="--num_processes 2"):
        Deal(2, 3, 1)


def test_the_pairs_of_a_stretch_lie_end_to_end() -> None:
    assert cut([range(20, 25), range(3, 4), range(10)], 4, 9) == [range(24, 25), range(3, 4), range(3)]


BOUNDS = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 30)), min_size=1, max_size=9)


@given(BOUNDS, st.none() | st.integers(1, 100), st.integers(1, 12))
def test_the_index_of_a_streamed_pair_names_its_shard_and_row(
    bounds: list[tuple[int, int]], limit: int | None, size: int
) -> None:
    rows = [(shard, row) for shard, (start, stop) in enumerate(bounds) for row in range(start, stop)][:limit]
    places = ShardPlaces(bounds, limit)
    assert list(places) == rows
    blocks = [block for number in range(len(places.stretches)) for block in places.blocks(number, size)]
    assert [index for block in blocks for index in block] == list(range(len(rows)))
    for block in blocks:  # what is read together
        assert len({(shard, row // size) for shard, row in (places[index] for index in block)}) == 1


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=9),
    PROCESSES,
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(0, 3),
)
def test_a_stream_is_dealt_once_and_each_worker_reads_on(
    lengths: list[int], processes: int, batch_size: int, workers: int, epoch: int
) -> None:
    assume(sum(lengths) >= processes)
    places = ShardPlaces([(0, length) for length in lengths])
    sampler = BlockSampler([places.blocks(number, 4) for number in range(len(places.stretches))], workers)
    sampler.set_epoch(epoch)
    shares = [ProcessBatches(sampler, batch_size, processes, process) for process in range(processes)]
    dealt = [[[index for _, index in batch] for batch in batches] for batches in shares]
    assert sorted(index for process in dealt for batch in process for index in batch) == list(range(sum(lengths)))
    assert len({len(process) for process in dealt}) == 1 and all(batch for process in dealt for batch in process)
    for process in dealt:
        for worker in range(workers):
            read = [(places[i][0], places[i][1] // 4) for batch in process[worker::workers] for i in batch]
            changes = sum(a != b for a, b in zip(read, read[1:], strict=False))
            assert changes <= len(set(read)) - 1 or not read, "a block is read twice"


def test_a_stream_is_taken_up_in_its_midst() -> None:
    sampler = BlockSampler([[range(0, 8), range(8, 13)], [range(13, 20)]], 2, seed=3)
    whole = list(ProcessBatches(sampler, 3))
    for taken in range(len(whole) + 1):
        again = ProcessBatches(sampler, 3)
        again.taken = taken
        assert list(again) == whole[taken:]
    assert sorted(sampler) == [(0, index) for index in range(20)]
