"""Pairs dealt to processes: a partition of the epoch, whatever the numbers."""

from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pix2pix_hub.data.sampling import Deal, ProcessBatches
from pix2pix_hub.data.transforms import EpochSampler
from pix2pix_hub.util import UserError

PAIRS, PROCESSES, BATCH_SIZES = st.integers(1, 200), st.integers(1, 9), st.integers(1, 8)


@given(PAIRS, PROCESSES, BATCH_SIZES)
@example(101, 2, 1)  # one pair left for two processes, nothing to share it with
@example(97, 3, 2)  # one left for three: shared with the step before
@example(101, 3, 4)
def test_every_pair_is_dealt_once_in_steps_that_all_take(pairs: int, processes: int, batch_size: int) -> None:
    if pairs < processes:
        return
    deal = Deal(pairs, processes, batch_size)
    shares = [deal.share(step, process) for step in range(len(deal)) for process in range(processes)]
    assert [place for share in shares for place in share] == list(range(pairs))
    assert min(map(len, shares)) >= 1
    assert max(map(len, shares)) <= max(batch_size, 2 if processes > 1 else 1)


@given(PAIRS, PROCESSES, BATCH_SIZES, st.integers(1, 5))
def test_the_count_is_that_of_the_shares(pairs: int, processes: int, batch_size: int, every: int) -> None:
    if pairs < processes:
        return
    deal = Deal(pairs, processes, batch_size)
    for process in range(processes):
        for first in range(every):
            shares = (deal.share(step, process) for step in range(first, len(deal), every))
            assert deal.count(process, first, every) == sum(map(len, shares))


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
