"""Whole runs, a second long each: what they write, and when they stop."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from run_results import Tiny, entries, files, same, train, weights
from tiny_exports import EXPORT_FILES
from tiny_options import TINY_OPTIONS

from pix2pix_hub.config import PRESETS, TrainingConfig, preset_config
from pix2pix_hub.data.cache import DevicePairs, PairCache
from pix2pix_hub.data.transforms import PairTensors
from pix2pix_hub.models import PatchGANDiscriminator, load_generator
from pix2pix_hub.training import loaders
from pix2pix_hub.training import trainer as training
from pix2pix_hub.training.report import TrainingDiverged
from pix2pix_hub.training.trainer import Pix2PixTrainer
from pix2pix_hub.util import UserError


def test_a_run_writes_exactly_what_it_should(finished: Path) -> None:
    assert files(finished / "model") == files(finished / "model_best") == [*EXPORT_FILES]
    assert sorted(path.name for path in finished.iterdir()) == [
        *(".lock", "checkpoints", "curves.png", "metrics.jsonl"),
        *("model", "model_best", "samples", "training_config.json"),
    ]
    assert files(finished / "samples") == ["epoch_0002.png"]  # no time for a picture of the first
    assert [path.name for path in (finished / "checkpoints").iterdir()] == ["checkpoint_6"]


def test_the_log_has_a_line_a_step_and_one_an_epoch(finished: Path) -> None:
    steps, validations = entries(finished, "train"), entries(finished, "validation")
    assert [entry["step"] for entry in steps] == [1, 2, 3, 4, 5, 6]
    assert [(entry["step"], entry["epoch"]) for entry in validations] == [(3, 1), (6, 2)]
    for entry in steps + validations:
        assert all(math.isfinite(value) for name, value in entry.items() if name != "event"), entry
    assert validations[-1]["train_d_loss"] == pytest.approx(sum(entry["d_loss"] for entry in steps[3:]) / 3)


def test_the_recorded_options_are_the_ones_used_and_name_no_folder(finished: Path) -> None:
    recorded = json.loads((finished / "model" / "training_config.json").read_text())
    assert TrainingConfig.from_dict(recorded["options"]) == preset_config("demo", **TINY_OPTIONS)
    assert str(finished.parent) not in json.dumps(recorded)
    assert recorded["dataset"]["fingerprint"].startswith("synthetic-")
    assert "torch" in recorded["versions"]


@pytest.mark.parametrize(
    ("options", "name", "size", "multiple"),
    [
        ({"image_size": "32x64"}, "UNetGenerator", [32, 64], 8),
        ({"generator": "resnet_6", "num_downs": 5, "image_size": "36x32"}, "ResNetGenerator", [36, 32], 4),
    ],
)
def test_the_export_is_what_was_validated(options: dict, name: str, size: list[int], multiple: int, tiny: Tiny) -> None:
    trainer = Pix2PixTrainer(tiny(**options, epochs=1))
    result = trainer.train()
    assert (result.step, result.epoch, result.stop_signal) == (3, 1, None)
    generator = load_generator(result.run_folder / "model")
    assert type(generator).__name__ == name
    source = torch.rand(1, 3, *size)
    assert torch.equal(generator(source), trainer.learner.exported_generator.eval()(source))
    measured, entry = trainer.validation.measure(), entries(result.run_folder, "validation")[-1]
    assert measured == pytest.approx({name: entry[name] for name in measured})
    PatchGANDiscriminator.from_pretrained(result.run_folder / "model")
    content = json.loads((result.run_folder / "model" / "preprocessor_config.json").read_text())
    assert (content["image_size"], content["size_multiple"]) == (size, multiple)
    assert content["source"]["channels"] == content["target"]["channels"] == 3
    assert {entry["name"] for entry in content["source"]["palette"]} > {"window", "door"}
    assert "palette" not in content["target"]


def test_the_same_seed_gives_the_same_weights_whatever_reads_the_data(tiny: Tiny, finished: Path) -> None:
    assert same(weights(train(tiny(num_workers=2)).run_folder), weights(finished))


def test_pairs_kept_on_the_device_give_the_same_weights(
    tiny: Tiny, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def kept(tensors: PairTensors, device: torch.device) -> DevicePairs:
        assert isinstance(tensors.prepared, PairCache)
        asked.append(device.type)
        return DevicePairs(tensors.prepared, tensors.transform, device)

    monkeypatch.setattr(loaders.DevicePairs, "where_they_fit", kept)
    assert same(weights(train(tiny()).run_folder), weights(finished))
    assert asked == ["cpu"]


def test_another_seed_gives_other_weights_and_without_average_the_raw_ones_are_exported(
    tiny: Tiny, finished: Path
) -> None:
    raw = train(tiny(ema_decay=0.0)).run_folder
    of_checkpoint = weights(raw / "checkpoints" / "checkpoint_6", "model.safetensors")
    assert same(weights(raw / "model", "model.safetensors"), of_checkpoint)
    assert same(weights(finished / "checkpoints" / "checkpoint_6", "model.safetensors"), of_checkpoint)
    assert not same(weights(finished), weights(raw))
    shutil.rmtree(raw)
    assert not same(weights(finished), weights(train(tiny(seed=1)).run_folder))


def test_best_and_last_exports_differ_when_an_earlier_epoch_was_better(tiny: Tiny) -> None:
    run = train(tiny(epochs=4, learning_rate=0.02)).run_folder
    l1 = [entry["l1"] for entry in entries(run, "validation")]
    best = json.loads((run / "model_best" / "metrics.json").read_text())
    assert best["l1"]["value"] == min(l1)
    assert best["epoch"] == l1.index(min(l1)) + 1
    assert json.loads((run / "model" / "metrics.json").read_text())["epoch"] == 4
    rates = [entry["learning_rate"] for entry in entries(run, "train")]  # falls in the second half
    assert rates == pytest.approx([0.02] * 7 + [0.02 * factor / 6 for factor in (5, 4, 3, 2, 1)])


def best_in_the_second_epoch(config: TrainingConfig, monkeypatch: pytest.MonkeyPatch) -> Pix2PixTrainer:
    values = iter([0.3, 0.1, 0.2, 0.25])
    trainer = Pix2PixTrainer(config)
    metrics = {"psnr": 1.0, "ssim": 0.5, "d_loss": 1.0, "g_loss": 1.0}
    monkeypatch.setattr(trainer.validation, "measure", lambda: {"l1": next(values), **metrics})
    return trainer


@pytest.mark.parametrize("options", [{}, {"ema_decay": 0.0, "checkpoint_every": 7}])
def test_the_best_epoch_is_kept_as_it_was_until_it_is_written(
    options: dict, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written at the end, or before a checkpoint in the middle of the third epoch, it is what was there at once."""
    monkeypatch.setattr(training, "WRITING_SHARE", math.inf)
    runs = {}
    for seconds in (0.0, 3600.0):
        monkeypatch.setattr(training, "SECONDS_BETWEEN_PICTURES", seconds)
        config = tiny(epochs=4, learning_rate=0.02, output_dir=str(tmp_path / str(seconds)), **options)
        runs[seconds] = best_in_the_second_epoch(config, monkeypatch).train().run_folder
    at_once, later = runs.values()
    assert files(at_once / "samples") == [f"epoch_000{epoch}.png" for epoch in (1, 2, 3, 4)]
    assert files(later / "samples") == ["epoch_0002.png", "epoch_0004.png"]
    assert same(weights(later, "model_best/**/*.safetensors"), weights(at_once, "model_best/**/*.safetensors"))
    assert not same(weights(later, "model_best/*.safetensors"), weights(later, "model/*.safetensors"))
    for name in ("samples.png", "config.json", "discriminator/config.json"):
        assert (later / "model_best" / name).read_bytes() == (at_once / "model_best" / name).read_bytes()
    assert json.loads((later / "model_best" / "metrics.json").read_text())["epoch"] == 2


def test_the_best_epoch_is_written_when_something_ends_the_run(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trainer = best_in_the_second_epoch(tiny(epochs=4, learning_rate=0.02), monkeypatch)
    step = trainer.learner.step

    def failing(*batch: torch.Tensor) -> dict[str, torch.Tensor]:
        if trainer.progress.step == 8:
            raise TrainingDiverged("as a loss that is no number would")
        return step(*batch)

    trainer.learner = dataclasses.replace(trainer.learner, step=failing)
    with pytest.raises(TrainingDiverged):
        trainer.train()
    assert json.loads((tmp_path / "run" / "model_best" / "metrics.json").read_text())["epoch"] == 2
    assert not (tmp_path / "run" / "model").exists()


def test_what_is_written_now_and_then_takes_its_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(training.time, "monotonic", lambda: now)
    spacing = training.Spacing(60.0)
    assert not spacing.due()
    now = 161.0
    assert spacing.due()
    with spacing.measured():
        now = 171.0  # ten seconds are 2 % of 500
    now = 660.0
    assert not spacing.due()
    now = 672.0
    assert spacing.due()


def test_validation_does_not_depend_on_how_its_pairs_are_batched(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []
    for images in (2, 16):  # in batches of 2, 2 and 1, and at once
        monkeypatch.setattr("pix2pix_hub.data.transforms.VALIDATION_IMAGES", images)
        trainer = Pix2PixTrainer(tiny(max_validation_pairs=5, batch_size=1))
        measured.append(trainer.validation.measure())
    assert measured[0] == pytest.approx(measured[1], rel=1e-5)


def test_early_stopping_counts_epochs_without_a_better_value(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0.3, 0.2, 0.25, 0.21, 0.1, 0.1])
    trainer = Pix2PixTrainer(tiny(epochs=6, early_stopping_patience=2))
    metrics = {"psnr": 1.0, "ssim": 0.5, "d_loss": 1.0, "g_loss": 1.0}
    monkeypatch.setattr(trainer.validation, "measure", lambda: {"l1": next(values), **metrics})
    assert trainer.train().epoch == 4


def test_max_steps_ends_in_the_middle_of_an_epoch_and_validates(tiny: Tiny) -> None:
    result = train(tiny(max_steps=4))
    assert result.step == 4
    assert [entry["step"] for entry in entries(result.run_folder, "validation")] == [3, 4]


def test_gradient_accumulation_takes_fewer_steps(tiny: Tiny) -> None:
    assert train(tiny(gradient_accumulation_steps=2)).step == 4  # 3 batches an epoch: one step of two, one of the last


SMALL = {"base_channels": 4, "num_downs": 5, "discriminator_base_channels": 4}


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        *((PRESETS[name] | SMALL, None) for name in ("default", "compact", "paper")),
        (PRESETS["strong"] | SMALL | {"preset": "strong", "perceptual_weight": 0.0}, "g_perceptual"),
        ({"gan_loss": "lsgan", "l2_weight": 1.0}, None),
        ({"l1_weight": 0.0}, "g_l1"),
        ({"gan_weight": 0.0}, "g_gan"),
    ],
)
def test_every_preset_and_every_loss_trains(options: dict, missing: str | None, tiny: Tiny) -> None:
    result = train(tiny(**options, epochs=1))
    assert result.step == 3 and result.metrics["l1"] < 1
    assert missing not in entries(result.run_folder, "train")[0]
    assert (result.run_folder / "curves.png").exists()


def test_an_export_does_not_tell_where_the_pairs_lie(real_data: Path, tiny: Tiny) -> None:
    options = dict(dataset=str(real_data / "facades"), direction="BtoA", max_train_pairs=4, epochs=1)
    run = train(tiny(**options), command=f"train --dataset={real_data / 'facades'}").run_folder
    exported = (run / "model" / "training_config.json").read_text()
    assert str(real_data.parent) not in exported
    assert json.loads(exported)["dataset"]["id"] == "facades"
    assert json.loads(exported)["command"] == "train --dataset=path/to/facades"


def test_a_diverging_run_stops_and_says_where(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged, match=r"step \d.*loss is (nan|inf).*--learning-rate"):
        train(tiny(learning_rate=1e30, log_every=2, checkpoint_every=1, ema_decay=0.0))
    assert not (tmp_path / "run" / "model").exists()
    assert not (tmp_path / "run" / "checkpoints").exists(), "of weights that are infinite"


def test_a_tracker_gets_the_entries(tiny: Tiny) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train(tiny(report_to=("tensorboard",))).run_folder
    events = EventAccumulator(str(run / "pix2pix_hub")).Reload()
    values = [event.value for event in events.Scalars("validation/l1")]
    assert values == pytest.approx([entry["l1"] for entry in entries(run, "validation")])


def test_eight_facades_are_learnt_by_heart(real_data: Path, tiny: Tiny) -> None:
    options = dict(
        dataset=str(real_data / "facades"), direction="BtoA", image_size="128", base_channels=32, num_downs=6,
        max_train_pairs=8, max_validation_pairs=8, validation_split="train", batch_size=1, epochs=40, dropout=0.0,
        flip_probability=0.0, jitter_scale=1.0, upsampling="transposed", log_every=20,
    )  # fmt: skip
    assert train(tiny(**options)).metrics["l1"] < 0.06


def test_other_metrics_are_computed_followed_and_drawn(tiny: Tiny) -> None:
    run = train(tiny(eval_metrics=("ssim",), best_metric="ssim", epochs=3)).run_folder
    validations = entries(run, "validation")
    assert all(name not in entry for entry in validations for name in ("l1", "psnr", "train_l1"))
    best = json.loads((run / "model_best" / "metrics.json").read_text())
    assert best["ssim"]["value"] == max(entry["ssim"] for entry in validations)
    assert (run / "curves.png").exists()


def test_training_pairs_are_measured_as_the_validation_pairs_are(tiny: Tiny) -> None:
    """Validated on its own training pairs, both numbers are one."""
    run = train(tiny(validation_split="train", max_train_pairs=3, epochs=1)).run_folder
    (entry,) = entries(run, "validation")
    assert entry["train_l1"] == pytest.approx(entry["l1"], rel=1e-6)
    assert json.loads((run / "model" / "metrics.json").read_text())["train_l1"]["value"] > 0


# --- resuming ---


def test_a_finished_run_goes_on_to_more_epochs_and_no_further(tiny: Tiny, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    for _ in range(2):
        result = train(tiny(resume=True, epochs=3))
        assert (result.step, result.epoch) == (9, 3)
        assert [entry["step"] for entry in entries(result.run_folder, "train")] == list(range(1, 10))
    recorded = json.loads((result.run_folder / "training_config.json").read_text())
    assert recorded["options"]["epochs"] == 3
    assert "fingerprint" in recorded["dataset"]


def test_resuming_a_finished_run_changes_nothing(tiny: Tiny, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    again = train(tiny(resume=True))
    assert same(weights(again.run_folder), weights(finished))
    assert again.metrics.items() <= entries(finished, "validation")[-1].items()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"base_channels": 8}, "--base-channels 8 .the run has 4"),
        ({"seed": 3}, "--seed 3"),
        ({"batch_size": 1}, "--batch-size 1"),
        ({"best_metric": "ssim"}, "--best-metric ssim"),
        ({"image_size": "64", "resize": "pad"}, "--image-size 64 .*--resize pad"),
        ({"source_mode": "rgb", "target_mode": "rgb", "on_bad_pair": "skip"}, "--source-mode.*--target.*--on-bad-pair"),
    ],
)
def test_resuming_with_other_options_is_refused(change: dict, words: str, tiny: Tiny, finished: Path) -> None:
    with pytest.raises(UserError, match=words):
        Pix2PixTrainer(tiny(resume=True, output_dir=str(finished), **change))


@pytest.mark.parametrize(
    ("recorded", "altered", "options", "words"),
    [
        ('"base_channels": 4', '"base_channels": 8', {"base_channels": 8}, "does not fit these networks"),
        ("synthetic-", "other-", {}, "pairs have changed"),
    ],
)
def test_a_run_that_does_not_fit_what_it_recorded_is_refused(
    recorded: str, altered: str, options: dict, words: str, tiny: Tiny, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    path = tmp_path / "run" / "training_config.json"
    path.write_text(path.read_text().replace(recorded, altered))
    with pytest.raises(UserError, match=words):
        train(tiny(resume=True, **options))


@pytest.mark.parametrize(
    "content", ["", "{", '{"options": {"epochs": "two"}}', '{"options": {"num_workers": 0.5}}', "{}"]
)
def test_a_damaged_training_config_is_named(content: str, tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "training_config.json").write_text(content)
    with pytest.raises(UserError, match="training_config.json"):
        Pix2PixTrainer(tiny(resume=True))


# --- refused before anything is written ---


def test_a_tracker_that_is_not_installed_is_named(tiny: Tiny) -> None:
    with pytest.raises(UserError, match="pip install swanlab"):
        Pix2PixTrainer(tiny(report_to=("swanlab",)))


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        (("l1", "lpips"), "--eval-metrics lpips: alexnet.*leave it out"),
        (("l1", "ms_ssim"), "--eval-metrics ms_ssim: MS-SSIM needs 176 pixels"),
        (("l1", "lpisp"), "--eval-metrics 'lpisp' is unknown"),
    ],
)
def test_metrics_that_cannot_be_computed_are_refused(
    metrics: tuple, words: str, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(UserError, match=words):
        train(tiny(eval_metrics=metrics))
    assert not (tmp_path / "run").exists()


def test_a_folder_with_a_run_or_other_files_is_never_overwritten(tiny: Tiny, finished: Path, tmp_path: Path) -> None:
    before = files(finished)
    with pytest.raises(UserError, match="--resume"):
        Pix2PixTrainer(tiny(output_dir=str(finished)))
    assert files(finished) == before
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").touch()
    for resume in (False, True):
        with pytest.raises(UserError, match="no run"):
            Pix2PixTrainer(tiny(resume=resume))
    assert files(tmp_path) == ["run/thesis.tex"]


def test_a_folder_that_cannot_be_made_is_named(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written to.*--output-dir"):
        train(tiny(output_dir=str(tmp_path / "file" / "run")))
