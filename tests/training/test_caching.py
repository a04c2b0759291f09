"""`--cache`: the same run with and without it, in the room there is, and said so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from run_results import Tiny, entries, same, weights

from pix2pix_hub import devices
from pix2pix_hub.data.decode import PairDataset
from pix2pix_hub.training.trainer import Pix2PixTrainer
from pix2pix_hub.util import UserError


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the free memory of the control group that this process seems to run in."""

    def set_free(free: int) -> None:
        (tmp_path / "memory.max").write_text(f"{free + 1000}\n")
        (tmp_path / "memory.current").write_text("2000\n")
        (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 1000\n")
        files = (str(tmp_path / "memory.max"), str(tmp_path / "memory.current"), "inactive_file")
        monkeypatch.setattr(devices, "CGROUP_FILES", (files,))

    return set_free


@pytest.mark.parametrize("rotation_degrees", [0.0, 10.0])
def test_the_same_seed_gives_the_same_weights_and_metrics_with_and_without_a_cache(
    rotation_degrees: float, tiny: Tiny, tmp_path: Path, datasets_cache: Path
) -> None:
    outcomes = []
    for cache in ("off", "memory", "disk"):
        config = tiny(cache=cache, output_dir=str(tmp_path / cache), rotation_degrees=rotation_degrees)
        trainer = Pix2PixTrainer(config)
        outcomes.append((trainer.train().metrics, weights(tmp_path / cache)))
        assert trainer.cache.plan.mode == cache
        assert (trainer.train_loader.dataset.prepared is None) == (cache == "off")
    assert list(datasets_cache.rglob("pixels.bin"))
    for metrics, tensors in outcomes[1:]:
        assert metrics == outcomes[0][0]
        assert same(tensors, outcomes[0][1])


def test_every_pair_is_decoded_once_before_training(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(12):
        (tmp_path / "pairs" / "train").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 32), (index, 0, 0)).save(tmp_path / "pairs" / "train" / f"{index:02}.png")
    read: Counter[str] = Counter()
    before = PairDataset.decode
    counted = lambda self, row, name: read.update([name]) or before(self, row, name)  # noqa: E731
    monkeypatch.setattr(PairDataset, "decode", counted)
    options = dict(dataset=str(tmp_path / "pairs"), max_train_pairs=None, max_validation_pairs=None, cache="memory")
    trainer = Pix2PixTrainer(tiny(**options))
    before_filling = Counter(read)
    trainer.cache.fill(trainer.accelerator)
    assert len(read) == 12
    assert (before_filling - Counter(dict.fromkeys(read, 1))).total() <= 8 + 2 * 8  # the first; a few for their size
    # what is measured on some training pairs is another picture of them
    assert (read - before_filling).total() == len(trainer.validation.training_loader.dataset)


def test_a_dry_run_writes_no_cache(tiny: Tiny, datasets_cache: Path) -> None:
    trainer = Pix2PixTrainer(tiny(cache="disk", dry_run=True))
    assert "decoded pairs (6 training, 3 validation)" in trainer.describe()
    assert not list(datasets_cache.rglob("*.bin"))


def test_pairs_are_kept_while_they_take_at_most_half_of_the_free_memory(
    tiny: Tiny, container: Callable[[int], None]
) -> None:
    config = tiny(jitter_scale=1.0, dry_run=True)
    needed = 9 * 2 * 3 * 32 * 32
    container(2 * needed + 10)
    assert devices.available_memory() == 2 * needed + 10
    assert Pix2PixTrainer(config).cache.plan.mode == "memory"
    container(2 * needed - 10)
    cache = Pix2PixTrainer(config).cache
    assert cache.plan.mode == "off"
    assert "--cache disk" in cache.plan.words
    container(2 * needed + 10)
    assert Pix2PixTrainer(replace(config, epochs=1)).cache.plan.mode == "off", "pairs that are seen once are kept"


def test_memory_that_was_asked_for_and_is_not_there_is_refused(tiny: Tiny, container: Callable[[int], None]) -> None:
    container(50_000)
    with pytest.raises(UserError, match=r"--cache memory: decoded pairs would take about 0.1 MB of 0.1 MB.*disk"):
        Pix2PixTrainer(tiny(cache="memory", jitter_scale=1.0, dry_run=True))


def test_the_wait_for_pairs_is_logged(tiny: Tiny, tmp_path: Path) -> None:
    trainer = Pix2PixTrainer(tiny())
    trainer.train()
    waits = [entry["data_wait"] for entry in entries(tmp_path / "run", "train")]
    assert len(waits) == 6
    assert all(0 < wait < 1 for wait in waits)
    assert 0 < trainer.progress.waiting_seconds < trainer.progress.elapsed_seconds
