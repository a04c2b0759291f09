"""Whole runs, a second long each: what they write, and when they stop."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_exports import EXPORT_FILES

from pix2pix_hub.config import TrainingConfig
from pix2pix_hub.models import PatchGANDiscriminator, ResNetGenerator, UNetGenerator, load_generator
from pix2pix_hub.training.report import TrainingDiverged
from pix2pix_hub.training.trainer import Pix2PixTrainer, TrainingResult
from pix2pix_hub.util import UserError

Tiny = Callable[..., TrainingConfig]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def run(config: TrainingConfig) -> TrainingResult:
    return Pix2PixTrainer(config).train()


def weights(result: TrainingResult, name: str = "model") -> dict[str, torch.Tensor]:
    return load_file(result.run_folder / name / "model.safetensors")


def entries(result: TrainingResult, event: str) -> list[dict[str, Any]]:
    lines = (result.run_folder / "metrics.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if entry["event"] == event]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_writes_exactly_what_it_should(tiny: Tiny) -> None:
    result = run(tiny())
    folder = result.run_folder
    assert files(folder / "model") == [*EXPORT_FILES]
    assert files(folder / "model_best") == [*EXPORT_FILES]
    assert sorted(path.name for path in folder.iterdir()) == [
        *(".lock", "checkpoints", "curves.png", "metrics.jsonl"),
        *("model", "model_best", "samples", "training_config.json"),
    ]
    assert files(folder / "samples") == ["epoch_0001.png", "epoch_0002.png"]
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["checkpoint_6"]
    assert (result.step, result.epoch, result.stop_signal) == (6, 2, None)


def test_the_log_has_a_line_a_step_and_one_an_epoch(tiny: Tiny) -> None:
    result = run(tiny())
    assert [entry["step"] for entry in entries(result, "train")] == [1, 2, 3, 4, 5, 6]
    assert [(entry["step"], entry["epoch"]) for entry in entries(result, "validation")] == [(3, 1), (6, 2)]
    for entry in entries(result, "train") + entries(result, "validation"):
        assert all(math.isfinite(value) for name, value in entry.items() if name != "event"), entry
    train_means = [entry["d_loss"] for entry in entries(result, "train")][3:]
    assert entries(result, "validation")[-1]["train_d_loss"] == pytest.approx(sum(train_means) / 3)


def test_the_export_is_what_was_validated(tiny: Tiny) -> None:
    trainer = Pix2PixTrainer(tiny())
    result = trainer.train()
    generator = UNetGenerator.from_pretrained(result.run_folder / "model")
    source = torch.rand(1, 3, 32, 32)
    assert torch.equal(generator(source), trainer.learner.exported_generator.eval()(source))
    assert trainer.validation.measure() == pytest.approx(
        {
            name: value
            for name, value in entries(result, "validation")[-1].items()
            if name in trainer.validation.measure()
        }
    )
    PatchGANDiscriminator.from_pretrained(result.run_folder / "model")


def test_a_resnet_trains_and_is_exported_as_one(tiny: Tiny) -> None:
    trainer = Pix2PixTrainer(tiny(generator="resnet_6", num_downs=5, epochs=1, image_size="36x32"))
    folder = trainer.train().run_folder / "model"
    generator = load_generator(folder)
    assert isinstance(generator, ResNetGenerator)
    assert len(generator.blocks) == 6
    assert json.loads((folder / "preprocessor_config.json").read_text())["size_multiple"] == 4
    source = torch.rand(1, 3, 36, 32)
    assert torch.equal(generator(source), trainer.learner.exported_generator.eval()(source))


def test_the_recorded_options_are_the_ones_used_and_name_no_folder(tiny: Tiny) -> None:
    result = run(tiny())
    recorded = json.loads((result.run_folder / "model" / "training_config.json").read_text())
    assert TrainingConfig.from_dict(recorded["options"]) == replace(tiny(), output_dir=None)
    assert str(result.run_folder.parent) not in json.dumps(recorded)
    assert recorded["dataset"]["fingerprint"].startswith("synthetic-")
    assert "torch" in recorded["versions"]


def test_the_preprocessing_travels_with_the_model(tiny: Tiny) -> None:
    content = json.loads((run(tiny(image_size="32x64")).run_folder / "model" / "preprocessor_config.json").read_text())
    assert content["image_size"] == [32, 64]
    assert content["size_multiple"] == 8
    assert content["source"]["channels"] == content["target"]["channels"] == 3
    assert {entry["name"] for entry in content["source"]["palette"]} > {"window", "door"}
    assert "palette" not in content["target"]


def test_the_same_seed_gives_the_same_weights_whatever_reads_the_data(tiny: Tiny, tmp_path: Path) -> None:
    first = run(tiny(num_workers=0))
    again = run(tiny(num_workers=2, output_dir=str(tmp_path / "again")))
    other = run(tiny(seed=1, output_dir=str(tmp_path / "other")))
    assert same(weights(first), weights(again))
    assert not same(weights(first), weights(other))


def test_without_average_the_raw_weights_are_exported(tiny: Tiny, tmp_path: Path) -> None:
    averaged = run(tiny())
    raw = run(tiny(ema_decay=0.0, output_dir=str(tmp_path / "raw")))
    assert same(weights(raw), load_file(raw.run_folder / "checkpoints" / "checkpoint_6" / "model.safetensors"))
    assert not same(weights(averaged), weights(raw))


def test_best_and_last_exports_differ_when_an_earlier_epoch_was_better(tiny: Tiny) -> None:
    result = run(tiny(epochs=4, learning_rate=0.02))
    l1 = [entry["l1"] for entry in entries(result, "validation")]
    best = json.loads((result.run_folder / "model_best" / "metrics.json").read_text())
    assert best["l1"]["value"] == min(l1)
    assert best["epoch"] == l1.index(min(l1)) + 1
    assert json.loads((result.run_folder / "model" / "metrics.json").read_text())["epoch"] == 4


def test_early_stopping_counts_epochs_without_a_better_value(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0.3, 0.2, 0.25, 0.21, 0.1, 0.1])
    trainer = Pix2PixTrainer(tiny(epochs=6, early_stopping_patience=2))
    metrics = {"psnr": 1.0, "ssim": 0.5, "d_loss": 1.0, "g_loss": 1.0}
    monkeypatch.setattr(trainer.validation, "measure", lambda: {"l1": next(values), **metrics})
    assert trainer.train().epoch == 4


def test_max_steps_ends_in_the_middle_of_an_epoch_and_validates(tiny: Tiny) -> None:
    result = run(tiny(max_steps=4))
    assert result.step == 4
    assert [entry["step"] for entry in entries(result, "validation")] == [3, 4]


def test_gradient_accumulation_takes_fewer_steps(tiny: Tiny) -> None:
    result = run(tiny(gradient_accumulation_steps=2))
    assert result.step == 4  # 3 batches an epoch: one step of two, one of the last


def test_the_learning_rate_falls_to_its_last_step_in_the_second_half(tiny: Tiny) -> None:
    rates = [entry["learning_rate"] for entry in entries(run(tiny(epochs=4)), "train")]
    assert rates == pytest.approx([2e-4] * 7 + [2e-4 * factor / 6 for factor in (5, 4, 3, 2, 1)])


@pytest.mark.parametrize("preset", ["default", "compact", "paper"])
def test_every_preset_trains(preset: str, tiny: Tiny) -> None:
    from pix2pix_hub.config import PRESETS

    small = {"base_channels": 4, "num_downs": 5, "discriminator_base_channels": 4}
    result = run(tiny(**(PRESETS[preset] | small), epochs=1))
    assert result.metrics["l1"] < 1


@pytest.mark.parametrize("loss", ["lsgan", "hinge"])
def test_every_adversarial_loss_trains(loss: str, tiny: Tiny) -> None:
    assert run(tiny(gan_loss=loss, l2_weight=1.0, epochs=1)).step == 3


def test_a_run_without_l1_or_without_adversary_is_reported_too(tiny: Tiny, tmp_path: Path) -> None:
    for options in ({"l1_weight": 0.0}, {"gan_weight": 0.0}):
        result = run(tiny(**options, epochs=1, output_dir=str(tmp_path / next(iter(options)))))
        missing = "g_l1" if "l1_weight" in options else "g_gan"
        assert missing not in entries(result, "train")[0]
        assert (result.run_folder / "curves.png").exists()


def test_an_export_does_not_tell_where_the_pairs_lie(real_data: Path, tiny: Tiny) -> None:
    options = dict(dataset=str(real_data / "facades"), direction="BtoA", epochs=1)
    result = Pix2PixTrainer(tiny(**options), command=f"train --dataset={real_data / 'facades'}").train()
    exported = (result.run_folder / "model" / "training_config.json").read_text()
    assert str(real_data.parent) not in exported
    assert json.loads(exported)["dataset"]["id"] == "facades"
    assert json.loads(exported)["command"] == "train --dataset=path/to/facades"


def test_a_diverging_run_stops_and_says_where(tiny: Tiny) -> None:
    config = tiny(learning_rate=1e30, log_every=2, checkpoint_every=1, ema_decay=0.0)
    with pytest.raises(TrainingDiverged, match=r"step \d.*loss is (nan|inf).*--learning-rate"):
        run(config)
    folder = Path(str(config.output_dir))
    assert not (folder / "model").exists()
    for path in (folder / "checkpoints").glob("checkpoint_*/model*.safetensors"):
        assert all(torch.isfinite(tensor).all() for tensor in load_file(path).values()), path


def test_a_folder_with_a_run_is_never_overwritten(tiny: Tiny) -> None:
    before = files(run(tiny()).run_folder)
    with pytest.raises(UserError, match="--resume"):
        Pix2PixTrainer(tiny())
    assert files(Path(str(tiny().output_dir))) == before


def test_a_folder_with_other_files_is_left_alone(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").touch()
    for resume in (False, True):
        with pytest.raises(UserError, match="no"):
            Pix2PixTrainer(tiny(resume=resume))
    assert files(tmp_path) == ["run/thesis.tex"]


def test_runs_are_numbered(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = [run(tiny(output_dir=None, epochs=1)).run_folder.name for _ in range(2)]
    assert names == ["synthetic_demo_001", "synthetic_demo_002"]


def test_a_finished_run_goes_on_to_more_epochs(tiny: Tiny) -> None:
    run(tiny())
    result = run(tiny(resume=True, epochs=3))
    assert (result.step, result.epoch) == (9, 3)
    assert [entry["step"] for entry in entries(result, "train")] == list(range(1, 10))


def test_resuming_a_finished_run_changes_nothing(tiny: Tiny) -> None:
    first = run(tiny())
    before = weights(first)
    again = run(tiny(resume=True))
    assert same(before, weights(again))
    assert again.metrics == first.metrics


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"base_channels": 8}, "--base-channels 8 .the run has 4"),
        ({"seed": 3}, "--seed 3"),
        ({"batch_size": 1}, "batch"),
    ],
)
def test_resuming_with_other_options_is_refused(change: dict, words: str, tiny: Tiny) -> None:
    run(tiny(epochs=1))
    with pytest.raises(UserError, match=words):
        Pix2PixTrainer(tiny(resume=True, **change))


def test_a_checkpoint_of_another_architecture_is_refused(tiny: Tiny) -> None:
    run(tiny(epochs=1))
    config_path = Path(str(tiny().output_dir)) / "training_config.json"
    config_path.write_text(config_path.read_text().replace('"base_channels": 4', '"base_channels": 8'))
    with pytest.raises(UserError, match="does not fit these networks"):
        run(tiny(resume=True, base_channels=8))


def test_resuming_on_other_pairs_is_refused(tiny: Tiny) -> None:
    run(tiny(epochs=1))
    config_path = Path(str(tiny().output_dir)) / "training_config.json"
    config_path.write_text(config_path.read_text().replace("synthetic-", "other-"))
    with pytest.raises(UserError, match="pairs have changed"):
        Pix2PixTrainer(tiny(resume=True))


def test_options_changed_on_resume_are_kept(tiny: Tiny) -> None:
    run(tiny())
    result = run(tiny(resume=True, epochs=3))
    recorded = json.loads((result.run_folder / "training_config.json").read_text())
    assert recorded["options"]["epochs"] == 3
    assert "fingerprint" in recorded["dataset"]


def test_two_runs_that_start_at_once_get_a_number_each(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trainers = [Pix2PixTrainer(tiny(output_dir=None, epochs=1)) for _ in range(2)]
    assert trainers[0].run_folder == trainers[1].run_folder
    assert [trainer.train().run_folder.name for trainer in trainers] == ["synthetic_demo_001", "synthetic_demo_002"]


def test_a_folder_that_cannot_be_made_is_named(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written to.*--output-dir"):
        run(tiny(output_dir=str(tmp_path / "file" / "run")))


def test_another_best_metric_would_be_another_run(tiny: Tiny) -> None:
    run(tiny(epochs=1))
    with pytest.raises(UserError, match="--best-metric ssim"):
        Pix2PixTrainer(tiny(resume=True, best_metric="ssim"))


@pytest.mark.parametrize(
    "content", ["", "{", '{"options": {"epochs": "two"}}', '{"options": {"num_workers": 0.5}}', "{}"]
)
def test_a_damaged_training_config_is_named(content: str, tiny: Tiny) -> None:
    folder = run(tiny(epochs=1)).run_folder
    (folder / "training_config.json").write_text(content)
    with pytest.raises(UserError, match="training_config.json"):
        Pix2PixTrainer(tiny(resume=True))


def test_resume_without_any_run_names_the_ways_out(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="--output-dir"):
        Pix2PixTrainer(tiny(output_dir=None, resume=True))


def test_a_tracker_gets_the_entries(tiny: Tiny) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = run(tiny(report_to=("tensorboard",)))
    events = EventAccumulator(str(result.run_folder / "pix2pix_hub")).Reload()
    values = [event.value for event in events.Scalars("validation/l1")]
    assert values == pytest.approx([entry["l1"] for entry in entries(result, "validation")])


def test_a_tracker_that_is_not_installed_is_named(tiny: Tiny) -> None:
    with pytest.raises(UserError, match="pip install swanlab"):
        Pix2PixTrainer(tiny(report_to=("swanlab",)))


def test_eight_facades_are_learnt_by_heart(real_data: Path, tiny: Tiny) -> None:
    options = dict(
        dataset=str(real_data / "facades"), direction="BtoA", image_size="128", base_channels=32, num_downs=6,
        max_train_pairs=8, max_validation_pairs=8, validation_split="train", batch_size=1, epochs=40, dropout=0.0,
        flip_probability=0.0, jitter_scale=1.0, upsampling="transposed", log_every=20,
    )  # fmt: skip
    assert run(tiny(**options)).metrics["l1"] < 0.06


def test_other_metrics_are_computed_followed_and_drawn(tiny: Tiny) -> None:
    result = run(tiny(eval_metrics=("ssim",), best_metric="ssim", epochs=3))
    ssim = [entry["ssim"] for entry in entries(result, "validation")]
    assert all(name not in entry for entry in entries(result, "validation") for name in ("l1", "psnr", "train_l1"))
    best = json.loads((result.run_folder / "model_best" / "metrics.json").read_text())
    assert best["ssim"]["value"] == max(ssim)
    assert (result.run_folder / "curves.png").exists()


def test_metrics_that_cannot_be_computed_are_refused_before_anything_is_written(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(UserError, match="--eval-metrics lpips: alexnet.*leave it out"):
        run(tiny(eval_metrics=("l1", "lpips")))
    with pytest.raises(UserError, match="--eval-metrics ms_ssim: MS-SSIM needs 176 pixels"):
        run(tiny(eval_metrics=("l1", "ms_ssim")))
    with pytest.raises(UserError, match="--best-metric psnr is not computed: add it to --eval-metrics l1"):
        tiny(eval_metrics=("l1",), best_metric="psnr")
    with pytest.raises(UserError, match="--eval-metrics 'lpisp' is unknown"):
        tiny(eval_metrics=("l1", "lpisp"))
    assert not Path(str(tiny().output_dir)).exists()


def test_training_pairs_are_measured_as_the_validation_pairs_are(tiny: Tiny) -> None:
    """Validated on its own training pairs, both numbers are one."""
    result = run(tiny(validation_split="train", max_train_pairs=3, epochs=1))
    (entry,) = entries(result, "validation")
    assert entry["train_l1"] == pytest.approx(entry["l1"], rel=1e-6)
    assert json.loads((result.run_folder / "model" / "metrics.json").read_text())["train_l1"]["value"] > 0
