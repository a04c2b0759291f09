"""The segmentation scores: their formulas, their classes, their network, and that they tell good from bad."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from filelock import FileLock, Timeout
from known_generators import SIZE, batch, rendered
from PIL import Image

from pix2pix_hub.cli import main
from pix2pix_hub.config import PairOptions
from pix2pix_hub.data.pairs import load_pairs
from pix2pix_hub.data.transforms import PairTensors
from pix2pix_hub.evaluation import segmentation
from pix2pix_hub.evaluation.segmentation import (
    SCORES,
    ClassMap,
    LabelledPhotos,
    SegmenterRecipe,
    class_scores,
    confusion,
    find_classes,
    scores_with_intervals,
    segment,
    train_segmenter,
)
from pix2pix_hub.models import UNetGenerator
from pix2pix_hub.synthetic import CMP_CLASSES, render_pair

CMP = ClassMap(colors=tuple(CMP_CLASSES.values()))


def test_scores_are_those_of_their_definitions() -> None:
    random = np.random.default_rng(0)
    truth, found = random.integers(0, 4, (2, 3, 16, 16))
    found = np.where(random.random(truth.shape) < 0.6, truth, found)
    truth[truth == 3] = 0  # class 3 is found, but nowhere
    accuracies = [np.mean(found[truth == k] == k) for k in range(3)]
    overlaps = [np.sum((truth == k) & (found == k)) / np.sum((truth == k) | (found == k)) for k in range(3)]
    counts = confusion(torch.from_numpy(truth), torch.from_numpy(found), 4)
    scores = class_scores(counts.sum(0).numpy())
    assert scores["pixel_accuracy"] == pytest.approx(np.mean(truth == found))
    assert scores["class_accuracy"] == pytest.approx(np.mean(accuracies))
    assert scores["class_iou"] == pytest.approx(np.mean(overlaps))
    assert counts.sum(dim=(1, 2)).tolist() == [256, 256, 256]
    for name, score in scores_with_intervals(counts).items():
        assert score["ci95"][0] < score["value"] == scores[name] < score["ci95"][1]


def test_jpeg_leaves_the_classes_as_they_were() -> None:
    label, _ = render_pair(3, (128, 128))
    buffer = io.BytesIO()
    label.save(buffer, format="JPEG", quality=90, subsampling=0)
    stored, damaged = (
        torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in (label, Image.open(buffer).convert("RGB"))
    )
    exact = CMP.of_stored(stored)
    for number, color in enumerate(CMP.colors):
        assert ((stored == torch.tensor(color).view(3, 1, 1)).all(0) == (exact[0] == number)).all()
    assert (damaged != stored).float().mean() > 0.3
    assert (CMP.of_stored(damaged) == exact).float().mean() > 0.97


def test_classes_of_stored_values_and_of_generated_channels() -> None:
    classes = ClassMap(values=(0, 7, 200))
    assert classes.of_stored(torch.tensor([[[200, 0, 7]]], dtype=torch.uint8)).tolist() == [[[2, 0, 1]]]
    channels = torch.tensor([[0.1, -1.0], [0.5, -0.9], [-1.0, 1.0]]).view(1, 3, 1, 2)
    assert classes.of_generated(channels).tolist() == [[[1, 2]]]
    assert CMP.of_generated(rendered(3)[0][None]).shape == (1, SIZE, SIZE)


def test_the_classes_of_a_set_are_found(pairs: Path) -> None:
    found = find_classes(load_pairs(PairOptions(str(pairs))).train, "source", "segmentation")
    assert set(found.colors) <= set(CMP.colors)
    assert len(found) >= 9  # the rarest are in few façades


@pytest.fixture(scope="module")
def judge() -> UNetGenerator:
    """Trained for a few seconds on sixty of the embedded façades."""
    photos = LabelledPhotos(
        load_pairs(PairOptions("synthetic", image_size=str(SIZE), max_train_pairs=60)).train, "target", CMP
    )
    recipe = SegmenterRecipe((SIZE, SIZE), steps=120, batch_size=4, base_channels=8, learning_rate=6e-3)
    return train_segmenter(photos, recipe, torch.device("cpu"))


def trained_generator(steps: int) -> UNetGenerator:
    """By L1 alone, on the pairs that the judge saw."""
    torch.manual_seed(0)
    generator = UNetGenerator(base_channels=12, num_downs=4)
    sources, targets = batch(range(60))
    optimizer = torch.optim.Adam(generator.parameters(), 4e-3)
    for _ in range(steps):
        chosen = torch.randint(0, 60, (4,))
        loss = F.l1_loss(generator(sources[chosen]), targets[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return generator.eval()


def test_the_score_tells_real_from_trained_from_untrained_and_from_shuffled(judge: UNetGenerator) -> None:
    """By more than the intervals. Labels of another façade score above an untrained network: façades are alike."""
    sources, targets = batch(range(10_000, 10_040))
    truth = CMP.of_generated(sources)
    trained, untrained = (trained_generator(steps)(sources).detach() for steps in (80, 0))
    images = {"real": targets, "trained": trained, "shuffled": trained.roll(1, 0), "untrained": untrained}
    scores = {
        kind: scores_with_intervals(confusion(truth, segment(judge, photos), len(CMP)))
        for kind, photos in images.items()
    }
    for better, worse in (("real", "trained"), ("trained", "shuffled"), ("trained", "untrained")):
        for name in SCORES:
            assert scores[better][name]["ci95"][0] > scores[worse][name]["ci95"][1], (better, worse, name)


def test_photos_are_learnt_with_their_labels_turned_the_same_way(pairs: Path) -> None:
    """Flipped and cropped together, labels never interpolated: the classes stay where the photo shows them."""

    class LabelsTwice:
        """Each label map is its own photo."""

        rows = load_pairs(PairOptions(str(pairs))).train
        formats = rows.formats

        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            return self.rows[index][0], self.rows[index][0]

        def __len__(self) -> int:
            return len(self.rows)

    photos = LabelledPhotos(LabelsTwice(), "target", CMP)
    transform = photos.transform(SegmenterRecipe((SIZE, SIZE)), augment=True)
    pair = PairTensors(photos, transform)[(3, 2)]
    seen, truth = CMP.of_generated(pair["source"][None])[0], pair["target"].argmax(0)
    assert set(pair["target"].unique().tolist()) == {-1.0, 1.0}
    same, mirrored = ((seen == labels).float().mean() for labels in (truth, truth.flip(-1)))
    assert same > 0.75  # the photo is interpolated at the borders of classes
    assert same > mirrored + 0.1


def evaluate(run: Path, pairs: Path, output: Path, *options: str) -> dict:
    arguments = ["evaluate", str(run), str(pairs), "--output", str(output), "--metrics", "l1", "--no-checks"]
    assert main([*arguments, "--cpu-threads", "1", *options]) == 0
    return json.loads((output / "metrics.json").read_text())


def test_the_network_is_trained_once_for_a_set(
    run: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--task", "segmentation", "--segmenter-steps", "3"]

    def alone(*arguments: Any) -> UNetGenerator:
        """Trains, and sees that another evaluation would wait meanwhile."""
        (lock,) = (tmp_path / "cache" / "pix2pix_hub" / "segmenters").glob("*.lock")
        with pytest.raises(Timeout):
            FileLock(lock).acquire(blocking=False)
        return train_segmenter(*arguments)

    monkeypatch.setattr(segmentation, "train_segmenter", alone)
    first = evaluate(run, pairs, tmp_path / "out", *options)
    assert "segmentation score" in capsys.readouterr().out
    assert len(first["segmentation"]["network"]["weights_sha256"]) == 64
    assert set(first["segmentation"]) == {"task", "classes", "network", "real", "generated", "shuffled", "tells_apart"}
    kept = list((tmp_path / "cache" / "pix2pix_hub" / "segmenters").glob("*/model.safetensors"))
    assert len(kept) == 1
    monkeypatch.setattr(segmentation, "train_segmenter", lambda *_: pytest.fail("trained again"))
    assert evaluate(run, pairs, tmp_path / "again", *options) == first
    monkeypatch.setattr(segmentation, "train_segmenter", train_segmenter)
    kept[0].write_bytes(b"cut short")
    assert evaluate(run, pairs, tmp_path / "mended", *options) == first  # the same weights: training is seeded


def test_label_maps_are_scored_by_their_classes(run: Path, pairs: Path, tmp_path: Path) -> None:
    """The run's model read the other way round: sources are photos, targets label maps."""
    content = evaluate(run, pairs, tmp_path / "out", "--task", "labels", "--direction", "BtoA")
    scores = content["segmentation"]
    assert scores["network"] is None and "real" not in scores
    assert 0 <= scores["generated"]["pixel_accuracy"]["value"] < 1
    header = (tmp_path / "out" / "per_image.csv").read_text().splitlines()[0]
    assert header == "pair,l1,pixel_accuracy,pixel_accuracy_shuffled"


@pytest.mark.parametrize(("task", "side"), [("labels", "target"), ("segmentation", "source")])
def test_a_task_without_label_maps_is_refused(
    task: str, side: str, run: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    direction = "AtoB" if task == "labels" else "BtoA"
    arguments = [str(run), str(pairs), "--task", task, "--direction", direction, "--output", str(tmp_path / "out")]
    assert main(["evaluate", *arguments]) == 2
    assert f"--task {task} needs label maps as {side} images" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
