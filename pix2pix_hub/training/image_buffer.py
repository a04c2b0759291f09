"""A history of generated pairs, so that the discriminator does not forget what the generator used to do.

From Shrivastava et al. 2017, "Learning from Simulated and Unsupervised Images through Adversarial Training",
section 2.3, in the per-image form of CycleGAN (Zhu et al. 2017, section 4).
"""

from typing import Any

import torch
from torch import Tensor


class ImageBuffer:
    """Up to ``size`` past pairs ``cat(source, fake)``; swaps about half of each batch for older ones.

    The discriminator is conditional, so a fake is stored together with the source that it was made from. Pairs lie
    in one tensor (size + 1, C, H, W), the last for what is not kept, that the first exchange allocates on its own
    device and in its own dtype. Random decisions come from a CPU stream of the buffer's own, and go to the device as
    arguments of kernels: nothing is waited for, and the global stream stays untouched. So `query` has two halves,
    what the host decides (`draw`) and what the device does (`exchange`), always the same kernels.

    Args:
        size: pairs to keep (CycleGAN keeps 50); 0 turns the buffer off.
        seed: of the buffer's random stream. Under several processes give each its own.

    Raises:
        ValueError: ``size`` is negative.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        if size < 0:
            raise ValueError(f"the image buffer's size is {size}; expected 0 (off) or a positive number of pairs")
        self.size = size
        self._count = 0  # pairs stored, in slots 0..count-1
        self._storage: Tensor | None = None
        self._rows: dict[int, tuple[Tensor, list[Tensor]]] = {}  # by the size of a batch; see `draw`
        self._generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        """Return how many pairs are stored."""
        return self._count

    def query(self, pairs: Tensor) -> Tensor:
        """Return as many pairs as came in, each either the new one or, once the buffer is full, maybe an older one.

        Until the buffer is full every pair is stored and returned. Then each pair is, with probability 1/2, put in
        the place of a random stored one, which is returned instead; else it is returned and not stored. Items are
        treated one after another, so that a pair stored by this batch can be returned by this batch.

        Args:
            pairs: (N, C_source + C_target, H, W), any floating dtype and range; N may vary between calls.

        Returns:
            A detached copy of the same shape and dtype. With size 0, ``pairs`` itself, detached and not copied.

        Raises:
            ValueError: ``pairs`` is not 4-dimensional, or C, H or W differ from the stored pairs'.
        """
        return self.exchange(pairs, self.draw(len(pairs), pairs.device))

    def draw(self, number: int, device: torch.device) -> Tensor:
        """Decide what `exchange` does with the next `number` pairs.

        Returns:
            (3, number), int64, on `device`, one tensor for each `number`: the slot from which each pair is returned
            (`size`: from none), the item of the batch from which it is, if so, and the slot in which it stays
            (`size`: in none).
        """
        if number not in self._rows or self._rows[number][0].device != device:
            rows = torch.zeros(3, number, dtype=torch.int64, device=device)
            self._rows[number] = rows, list(rows.flatten().unbind())
        rows, cells = self._rows[number]
        if self.size == 0:
            return rows
        swaps = (torch.rand(number, generator=self._generator) < 0.5).tolist()
        slots = torch.randint(self.size, (number,), generator=self._generator).tolist()
        from_slots, from_items = [self.size] * number, list(range(number))
        items: dict[int, int] = {}  # slot → the item of this batch that it holds by now
        for item, (swap, slot) in enumerate(zip(swaps, slots, strict=True)):
            if self._count < self.size:
                items[self._count] = item
                self._count += 1
            elif swap:
                if slot in items:
                    from_items[item] = items[slot]
                else:
                    from_slots[item] = slot
                items[slot] = item
        kept = {item: slot for slot, item in items.items()}
        torch._foreach_zero_(cells)  # two kernels, and no copy from the host
        torch._foreach_add_(cells, [*from_slots, *from_items, *(kept.get(item, self.size) for item in range(number))])
        return rows

    @torch.no_grad()
    def exchange(self, pairs: Tensor, rows: Tensor) -> Tensor:
        """Return and store what `rows`, of `draw`, say; `pairs` and what is returned as in `query`."""
        if self.size == 0:
            return pairs.detach()
        if pairs.ndim != 4:
            raise ValueError(f"pairs have shape {tuple(pairs.shape)}; expected (N, C_source + C_target, H, W)")
        if self._storage is None:
            self._storage = torch.zeros((self.size + 1, *pairs.shape[1:]), dtype=pairs.dtype, device=pairs.device)
        if self._storage.shape[1:] != pairs.shape[1:]:
            raise ValueError(
                f"pairs have (C, H, W) = {tuple(pairs.shape[1:])}, but the image buffer holds "
                f"{tuple(self._storage.shape[1:])}; every batch of a run must have one shape"
            )
        self._storage = storage = self._storage.to(pairs.device)  # moves once, after a state loaded on another device
        from_slots, from_items, kept = rows
        older, newer = storage.index_select(0, from_slots), pairs.index_select(0, from_items)
        storage.index_copy_(0, kept, pairs)
        return torch.where((from_slots < self.size)[:, None, None, None], older, newer)

    def state_dict(self) -> dict[str, Any]:
        """Return copies of all that later queries depend on; only the filled part of the storage, (count, C, H, W)."""
        images = torch.empty(0) if self._storage is None else self._storage[: self._count].clone()
        return dict(size=self.size, count=self._count, images=images, generator=self._generator.get_state())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue, bitwise, where the buffer that gave ``state`` was; the next query moves images to its device.

        Raises:
            ValueError: the state contradicts itself or comes from a buffer of another size. This one is then
                as it was.
        """
        images, count = state["images"], state["count"]
        if state["size"] != self.size or not 0 <= count == len(images) <= self.size or (count and images.ndim != 4):
            raise ValueError(
                f"the saved image buffer has size {state['size']}, counts {count} pairs and holds images of shape "
                f"{tuple(images.shape)}; this one has size {self.size}. Resume with the size saved"
            )
        self._generator.set_state(state["generator"].cpu())
        self._count = count
        self._storage = None
        if self._count:
            self._storage = images.new_zeros((self.size + 1, *images.shape[1:]))
            self._storage[: self._count].copy_(images)
