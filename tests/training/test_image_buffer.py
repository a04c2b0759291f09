"""The history of pairs: what comes out, how often, and that a saved one goes on bitwise.

Every pair here is constant: ``value`` in its source channel and ``-value`` in its fake channel, so that an item's
identity and whether its halves still belong together can be read off.
"""

import io

import pytest
import torch
from torch import Tensor

from pix2pix_hub.training.image_buffer import ImageBuffer


def make_pairs(first: int, count: int) -> Tensor:
    values = torch.arange(first, first + count, dtype=torch.float32).view(-1, 1, 1, 1)
    return torch.cat([values, -values], dim=1).expand(-1, -1, 3, 2).clone()


def values_of(pairs: Tensor) -> list[int]:
    """Of whole pairs: source and fake belong together, and no pixel comes from another image."""
    assert torch.equal(pairs[:, 0], -pairs[:, 1]) and (pairs == pairs[:, :, :1, :1]).all()
    return [int(value) for value in pairs[:, 0, 0, 0]]


def filled_buffer(size: int = 10, seed: int = 0) -> ImageBuffer:
    buffer = ImageBuffer(size, seed)
    buffer.query(make_pairs(0, size))
    return buffer


def test_a_batch_behaves_as_its_items_one_after_another() -> None:
    """A reference in plain Python, fed with the same decisions; slots repeat within these batches.

    A pair is returned as it is until the buffer is full; then with probability 1/2 in exchange for a stored one.
    """
    size, batch, seed = 3, 8, 7
    buffer, twin = ImageBuffer(size, seed), torch.Generator().manual_seed(seed)
    stored: list[int] = []
    repeats_within_batch = 0
    for first in range(0, 10 * batch, batch):
        expected, new_values = [], range(first, first + batch)
        swaps = torch.rand(batch, generator=twin) < 0.5
        slots = torch.randint(size, (batch,), generator=twin)
        for new, swap, slot in zip(new_values, swaps.tolist(), slots.tolist(), strict=True):
            if len(stored) < size:
                stored.append(new)
                expected.append(new)
            elif swap:
                repeats_within_batch += stored[slot] >= first
                expected.append(stored[slot])
                stored[slot] = new
            else:
                expected.append(new)
        assert values_of(buffer.query(make_pairs(first, batch))) == expected
        assert len(buffer) == len(stored)
    assert repeats_within_batch > 0  # the case that this test is for did occur


def test_neither_input_nor_output_shares_memory_with_the_buffer() -> None:
    buffer = ImageBuffer(4)
    for first in range(0, 40, 4):
        new = make_pairs(first, 4)
        returned = buffer.query(new)
        before = values_of(buffer.state_dict()["images"])
        new.fill_(99), returned.fill_(77)
        assert values_of(buffer.state_dict()["images"]) == before


def test_history_is_detached_from_the_graph() -> None:
    for size in (0, 2):
        buffer = ImageBuffer(size)
        for first in range(0, 16, 4):
            returned = buffer.query(make_pairs(first, 4).requires_grad_() * 1)
            assert not returned.requires_grad and returned.is_leaf
        assert not buffer.state_dict()["images"].requires_grad


def test_size_zero_returns_its_input_and_keeps_nothing() -> None:
    buffer = ImageBuffer(0)
    for first in range(0, 40, 4):
        pairs = make_pairs(first, 4)
        assert torch.equal(buffer.query(pairs), pairs)
    assert len(buffer) == 0


def test_the_global_random_stream_is_neither_used_nor_moved() -> None:
    histories = []
    for global_seed, seed in ((1, 0), (2, 0), (2, 1)):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        buffer = filled_buffer(seed=seed)
        histories.append([values_of(buffer.query(make_pairs(first, 4))) for first in range(10, 90, 4)])
        assert torch.equal(torch.get_rng_state(), before)
    assert histories[0] == histories[1] != histories[2]


@pytest.mark.parametrize("queried", [0, 3, 8, 24])  # never used, filling, just full, long full
def test_a_restored_buffer_goes_on_bitwise(queried: int) -> None:
    buffer = ImageBuffer(8, seed=3)
    for first in range(queried):
        buffer.query(make_pairs(first, 1))
    file = io.BytesIO()
    torch.save(state := buffer.state_dict(), file)
    assert len(state["images"]) == min(queried, 8)  # the filled part alone
    resumed = ImageBuffer(8, seed=99)
    resumed.query(make_pairs(500, 5))  # whatever it did before must not show
    resumed.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    assert len(resumed) == len(buffer) == min(queried, 8)
    for first in range(100, 180, 4):
        assert torch.equal(buffer.query(make_pairs(first, 4)), resumed.query(make_pairs(first, 4)))
    assert torch.equal(buffer.state_dict()["images"], resumed.state_dict()["images"])


def test_a_state_is_a_snapshot() -> None:
    buffer = filled_buffer(4)
    state = buffer.state_dict()
    copy = ImageBuffer(4)
    copy.load_state_dict(state)
    for each in (buffer, copy):
        for first in range(4, 40, 4):
            each.query(make_pairs(first, 4))
    assert values_of(state["images"]) == [0, 1, 2, 3]
    assert torch.equal(state["generator"], filled_buffer(4).state_dict()["generator"])


def test_storage_takes_the_dtype_of_the_pairs() -> None:
    buffer = ImageBuffer(2)
    for first in range(0, 32, 4):
        pairs = make_pairs(first, 4).bfloat16()
        assert buffer.query(pairs).dtype == torch.bfloat16
    assert buffer.state_dict()["images"].dtype == torch.bfloat16


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(ValueError, match="-1.*0"):
        ImageBuffer(-1)


@pytest.mark.parametrize("shape", [(2, 3, 2), (1, 3, 3, 2), (1, 2, 3, 4)])
def test_pairs_of_another_shape_are_refused_also_by_a_restored_buffer(shape: tuple[int, ...]) -> None:
    restored = ImageBuffer(10)
    restored.load_state_dict(filled_buffer().state_dict())
    for buffer in (filled_buffer(), restored):
        with pytest.raises(ValueError, match=r"expected \(N|\(2, 3, 2\)"):
            buffer.query(torch.zeros(shape))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 9}, "size 9, counts 10.*this one has size 10"),
        ({"count": 4}, "counts 4"),
        ({"images": torch.zeros(10)}, "counts 10"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(change: dict, message: str) -> None:
    buffer, twin = filled_buffer(10), filled_buffer(10)
    with pytest.raises(ValueError, match=message):
        buffer.load_state_dict(buffer.state_dict() | change)
    for first in range(10, 50, 4):
        assert torch.equal(buffer.query(make_pairs(first, 4)), twin.query(make_pairs(first, 4)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: device placement and host syncs")
def test_queries_on_a_gpu_do_not_wait_for_it() -> None:
    buffer, batches = ImageBuffer(4), [make_pairs(first, 4).cuda() for first in range(0, 64, 4)]
    buffer.load_state_dict(filled_buffer(4).state_dict())  # on the CPU: the first query moves it
    buffer.query(batches[0])
    torch.cuda.set_sync_debug_mode("error")
    try:
        returned = [buffer.query(batch) for batch in batches]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(each.is_cuda and torch.equal(each[:, 0], -each[:, 1]) for each in returned)
