"""`pix2pix-hub evaluate` as its user types it, on a real export."""

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from known_generators import PAIRS, SIZE
from PIL import Image
from safetensors.torch import load_file, save_file

from pix2pix_hub.cli import main
from pix2pix_hub.cli.evaluate import update_card
from pix2pix_hub.config import EvaluationOptions, PairOptions
from pix2pix_hub.data.pairs import load_pairs
from pix2pix_hub.devices import process_state
from pix2pix_hub.evaluation.evaluate import evaluate, load_model, look_swapped
from pix2pix_hub.evaluation.report import describe, results
from pix2pix_hub.hub.card import make_card, write_card
from pix2pix_hub.metrics import MetricNetworks

ROOT = Path(__file__).parents[2]
PLAIN = ["--metrics", "l1", "psnr", "ssim"]


def evaluated(model: Path, pairs: Path, output: Path, *options: str) -> dict[str, Any]:
    """What metrics.json says after the command."""
    assert main(["evaluate", str(model), str(pairs), "--output", str(output), "--cpu-threads", "1", *options]) == 0
    return json.loads((output / "metrics.json").read_text())


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The error of a command that cannot work."""
    try:
        status = main(["evaluate", *arguments])
    except SystemExit as stopped:  # tyro's, of a word that no option takes
        status = stopped.code
    assert status == 2
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def plain_folder(run: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the plain metrics."""
    folder = tmp_path_factory.mktemp("plain") / "out"
    evaluated(run / "model", pairs, folder, *PLAIN)
    return folder


@pytest.fixture
def plain(plain_folder: Path) -> dict[str, Any]:
    return json.loads((plain_folder / "metrics.json").read_text())


@pytest.fixture
def model(run: Path, tmp_path: Path) -> Path:
    """A copy of the export that a test may change."""
    return Path(shutil.copytree(run / "model", tmp_path / "maps"))


def test_the_numbers_are_exactly_those_of_the_runs_last_validation(plain: dict[str, Any], run: Path) -> None:
    trained = json.loads((run / "model" / "metrics.json").read_text())
    assert trained["pairs"] == plain["dataset"]["pairs"] == PAIRS
    for name in ("l1", "psnr", "ssim"):
        assert plain[name]["value"] == trained[name]["value"]


def test_the_same_command_writes_the_same_bytes(run: Path, pairs: Path, tmp_path: Path) -> None:
    """A run's folder stands for its model."""
    options = ["--metrics", "l1", "ssim", "--num-samples", "2"]
    for name, folder in (("first", run / "model"), ("again", run)):
        evaluated(folder, pairs, tmp_path / name, *options)
    files = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert files == ["images.png", "metrics.json", "nearest.png", "per_image.csv"]
    for name in files:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def numbers(content: Any) -> list[float]:
    """All numbers of a JSON value, in order."""
    if isinstance(content, dict):
        return [number for key in content for number in numbers(content[key])]
    if isinstance(content, list):
        return [number for item in content for number in numbers(item)]
    return [float(content)] if isinstance(content, int | float) else []


def test_batch_size_and_number_of_processes_change_nothing(
    plain: dict[str, Any], run: Path, pairs: Path, tmp_path: Path
) -> None:
    options = [*PLAIN, "--task", "segmentation", "--segmenter-steps", "2"]
    alone = evaluated(run / "model", pairs, tmp_path / "one", *options, "--batch-size", "1")
    assert numbers(alone["l1"]) + numbers(alone["checks"]) == pytest.approx(
        numbers(plain["l1"]) + numbers(plain["checks"]), rel=1e-4, abs=1e-7
    )
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    command = ["-m", "pix2pix_hub.cli", "evaluate", str(run / "model"), str(pairs), "--output", "two", *options]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*launch, *command, "--batch-size", "2", "--cpu-threads", "1"],
        cwd=tmp_path, env=os.environ | environment, timeout=300, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written to two") == 1
    together = json.loads((tmp_path / "two" / "metrics.json").read_text())
    assert numbers(together) == pytest.approx(numbers(alone), rel=1e-4, abs=1e-7)
    assert together["dataset"] == plain["dataset"]


def test_the_table_averages_to_the_values_and_samples_differ_by_their_dropout(
    run: Path, pairs: Path, tmp_path: Path
) -> None:
    options = [*PLAIN, "--num-samples", "3", "--no-checks"]
    content = evaluated(run / "model", pairs, tmp_path / "out", *options, "--batch-size", "1")
    with (tmp_path / "out" / "per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["pair"] for row in rows] == [f"val/{10_000 + index}.png" for index in range(PAIRS)]
    for name in ("l1", "psnr", "ssim", "diversity"):
        assert np.mean([float(row[name]) for row in rows]) == pytest.approx(content[name]["value"], rel=1e-12)
        low, high = content[name]["ci95"]
        assert low <= content[name]["value"] <= high
    assert content["diversity"]["value"] > 0
    assert content["protocol"]["mode"].startswith("stochastic")
    again = evaluated(run / "model", pairs, tmp_path / "again", *options, "--batch-size", "4")
    other = evaluated(run / "model", pairs, tmp_path / "other", *options, "--seed", "1")
    assert again["diversity"]["value"] == pytest.approx(content["diversity"]["value"], rel=1e-5)
    assert other["diversity"]["value"] != pytest.approx(content["diversity"]["value"], rel=1e-5)


def test_what_was_done_is_written_down(plain: dict[str, Any], run: Path) -> None:
    how = plain["protocol"]
    assert (how["image_size"], how["resize"], how["pairs"]) == ([SIZE, SIZE], "exact", PAIRS)
    assert (how["mode"], how["precision"], how["seed"]) == ("deterministic", "float32", 0)
    assert how["target"]["bit_depth"] == 8
    assert "data range 1" in plain["psnr"]["protocol"]
    assert plain["dataset"] == {
        "id": "facades", "revision": None, "fingerprint": plain["dataset"]["fingerprint"], "split": "val",
        "direction": "AtoB", "pairs": PAIRS, "left_out": 0,
    }  # fmt: skip
    trained = json.loads((run / "training_config.json").read_text())
    assert plain["dataset"]["fingerprint"] == trained["dataset"]["fingerprint"]
    assert plain["model"]["id"] == "model"
    assert "torchmetrics" in plain["versions"]
    assert str(run.parent) not in json.dumps(plain)


def test_the_pictures_show_the_best_the_median_and_the_worst(plain: dict[str, Any], plain_folder: Path) -> None:
    with (plain_folder / "per_image.csv").open() as file:
        ranked = [row["pair"] for row in sorted(csv.DictReader(file), key=lambda row: float(row["l1"]))]
    assert plain["images"] == {"ranked_by": "l1", "best": ranked[:2], "median": ranked[2:4], "worst": ranked[-2:]}
    for name, rows in (("images", 6), ("nearest", 4)):
        width, height = Image.open(plain_folder / f"{name}.png").size
        assert width > 3 * 128 and height > rows * 128


def test_weights_that_cannot_be_had_leave_the_rest(
    run: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    content = evaluated(run / "model", pairs, tmp_path / "out", "--max-pairs", "4", "--no-checks")
    said = capsys.readouterr().out
    for name, file in (("lpips", "alexnet-owt"), ("fid", "weights-inception"), ("kid", "weights-inception")):
        assert content[name]["value"] is None
        assert file in content[name]["reason"] and "checkpoints" in content[name]["reason"]
    assert said.count("weights-inception-2015-12-05-6726825d.pth could not be downloaded") == 2
    assert content["l1"]["value"] > 0
    assert "pixels each way" in content["ms_ssim"]["reason"]
    arguments = [str(run / "model"), str(pairs), "--output", str(tmp_path / "none"), "--metrics", "fid", "--no-checks"]
    assert "nothing that was asked for could be measured" in refused(capsys, *arguments)
    assert len((tmp_path / "none" / "per_image.csv").read_text().splitlines()) == 1 + PAIRS
    shown = json.loads((tmp_path / "none" / "metrics.json").read_text())["images"]
    assert list(shown) == ["ranked_by", "first"]


def tiny_network(images: torch.Tensor) -> torch.Tensor:
    """Eight features of an image."""
    torch.manual_seed(0)
    return torch.nn.functional.conv2d(images.float() / 255, torch.randn(8, 3, 5, 5)).relu().mean(dim=(2, 3))


def test_networks_can_be_handed_over(run: Path, pairs: Path) -> None:
    networks = MetricNetworks(lpips=lambda a, b: (a - b).square().mean(dim=(1, 2, 3)), features=tiny_network)
    options = EvaluationOptions(metrics=("lpips", "fid", "kid"), max_pairs=6)
    found = evaluate(load_model(str(run)), str(pairs), options, process_state(), networks=networks)
    assert found is not None
    content = results(found)
    assert content["lpips"]["value"] > 0
    low, high = content["lpips"]["ci95"]
    assert low < content["lpips"]["value"] < high
    for name in ("fid", "kid"):  # one number, its N beside it
        assert content[name]["value"] > 0 and (content[name]["ci95"], content[name]["images"]) == (None, 6)
    assert "   of 6 images" in describe(content, found)
    # a generator that paints the targets has none of the distance
    perfect = dict.fromkeys(("generated", "target"), found.measured.features["target"])
    found.measured.features.update(perfect)
    assert results(found)["fid"]["value"] == pytest.approx(0, abs=1e-6)


def test_the_training_split_is_compared_with_the_others_of_it(run: Path, pairs: Path, tmp_path: Path) -> None:
    content = evaluated(
        run / "model", pairs, tmp_path / "out", "--split", "train", "--metrics", "l1", "--max-pairs", "5"
    )
    assert content["dataset"]["split"] == "train"
    assert content["checks"]["memorisation"]["real_targets_in_training"] == 0


def test_the_card_gets_the_results(
    model: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "---\nlicense: mit\ntags:\n- pix2pix\n---\n# My model\n\nWords.\n"
    (model / "README.md").write_text(text)
    evaluated(model, pairs, tmp_path / "out", *PLAIN, "--no-checks")
    assert "--update-card enters them in" in capsys.readouterr().out
    assert (model / "README.md").read_text() == text
    for _ in range(2):  # a second time replaces the first
        content = evaluated(model, pairs, tmp_path / "out", *PLAIN, "--no-checks", "--update-card")
    assert "results entered in" in capsys.readouterr().out
    card = ModelCard.load(model / "README.md")
    assert card.data.model_name == "maps"
    values = {result.metric_type: result.metric_value for result in card.data.eval_results or []}
    assert values == {name: round(content[name]["value"], 6) for name in ("l1", "psnr", "ssim")}
    assert card.data.license == "mit" and card.data.tags == ["pix2pix"]
    assert card.text.strip() == "# My model\n\nWords."
    entered = (model / "README.md").read_bytes()
    l1 = ("--metrics", "l1", "--split", "train", "--no-checks", "--update-card")
    for unlike in ("--max-pairs 3", "--image-size 72x80", "--num-samples 2", "--direction BtoA --task labels"):
        scored = evaluated(model, pairs, tmp_path / "out", *l1, *unlike.split())
        assert "not entered in" in capsys.readouterr().out, unlike
        assert (model / "README.md").read_bytes() == entered, unlike
        assert scored["protocol"]["image_size"] == ([72, 80] if "72x80" in unlike else [SIZE, SIZE])
    assert update_card(model / "README.md", scored)
    results = ModelCard.load(model / "README.md").data.eval_results or []
    assert len(results) == 3 + 1 + 3
    (score,) = [result for result in results if result.metric_type == "class_iou"]
    assert score.metric_value == round(scored["segmentation"]["generated"]["class_iou"]["value"], 6)
    assert score.dataset_split == "train" and "--task labels" in str(score.metric_name)


def test_what_was_entered_stays_when_the_export_is_published(model: Path, pairs: Path, tmp_path: Path) -> None:
    write_card(model, "user/facades")
    own = len(ModelCard.load(model / "README.md").data.eval_results or [])
    evaluated(model, pairs, tmp_path / "out", *PLAIN, "--no-checks", "--update-card")
    published = ModelCard(make_card(model, "user/facades")).data.eval_results or []
    assert len(published) == own + 3
    assert {result.dataset_split for result in published} == {"validation", "val"}


def test_bad_input_is_refused_with_words(
    run: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for option, value in (("--batch-size", "0"), ("--max-pairs", "1"), ("--seed", str(2**63)), ("--num-samples", "0")):
        assert f"{option} {value} cannot work" in refused(capsys, "no/such/model", "synthetic", option, value)
    assert "16,384" in refused(capsys, "no/such/model", "synthetic", "--image-size", "100000")
    model = str(run / "model")
    error = refused(capsys, model, str(pairs), "--metrics", "lpisp")
    assert "lpisp" in error and "lpips" in error
    assert "once" in refused(capsys, model, str(pairs), "--metrics", "l1", "l1")
    error = refused(capsys, model, str(pairs), "--split", "test")
    assert "--split test" in error and "train (12), val (7)" in error
    error = refused(capsys, model, str(pairs), "--image-size", "68")
    assert "multiples of 8" in error and "64x64 or 72x72" in error and "trained at 64x64" in error
    assert "needs a GPU" in refused(capsys, model, str(pairs), "--precision", "fp16")
    assert "neither a folder" in refused(capsys, model, "nowhere/at/all")
    assert "no local folder" in refused(capsys, "nowhere/at/all/model", str(pairs))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").touch()
    assert "other files" in refused(capsys, model, str(pairs), "--output", "thesis")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["chapter.tex"]


def write_pairs(folder: Path, count: int, mode: str = "RGB") -> Path:
    folder.mkdir(parents=True)
    for index in range(count):
        random = np.random.default_rng(index)
        shape = (32, 64) if mode != "RGB" else (32, 64, 3)
        values = random.integers(0, 255, shape).astype(np.uint16 if mode == "I;16" else np.uint8)
        Image.fromarray(values).save(folder / f"{index}.png")
    return folder.parent


def test_a_place_that_cannot_be_written_to_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "gone" / "for" / "good")
    for place in (tmp_path / "file" / "below", tmp_path / "link", Path("/proc/evaluation")):
        assert "cannot be written to" in refused(capsys, "no/such/model", "synthetic", "--output", str(place)), place
    refused(capsys, "no/such/model", "synthetic", "--output", str(tmp_path / "new" / "folder"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


def test_earlier_results_stay_where_a_model_makes_no_numbers_and_give_way_to_new_ones(
    model: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, two = tmp_path / "out", ("--metrics", "l1", "--max-pairs", "2")
    evaluated(model, pairs, output, *two)
    written = {path.name: path.read_bytes() for path in output.iterdir()}
    assert set(written) == {"images.png", "metrics.json", "nearest.png", "per_image.csv"}
    weights = load_file(model / "model.safetensors")
    save_file({name: weight * float("nan") for name, weight in weights.items()}, model / "model.safetensors")
    error = refused(capsys, str(model), str(pairs), "--output", str(output), *two)
    assert "values that are no numbers" in error
    assert {path.name: path.read_bytes() for path in output.iterdir()} == written
    save_file(weights, model / "model.safetensors")
    (output / "per_image.csv").unlink()  # as if stopped half-way: still a folder of results
    evaluated(model, pairs, output, *two, "--no-checks")
    assert not (output / "nearest.png").exists()


def test_a_judge_that_tells_nothing_apart_is_not_believed(
    model: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (model / "README.md").write_text("---\nlicense: mit\n---\nWords.\n")
    judge = ("--task", "segmentation", "--segmenter-steps", "2")
    content = evaluated(model, pairs, tmp_path / "out", "--metrics", "l1", "--no-checks", "--update-card", *judge)
    assert content["segmentation"]["tells_apart"] is False
    assert "these scores say nothing" in capsys.readouterr().out
    entered = ModelCard.load(model / "README.md").data.eval_results or []
    assert [result.metric_type for result in entered] == ["l1"]


def test_a_card_that_cannot_be_read_is_told(model: Path, pairs: Path, tmp_path: Path, capsys: Any) -> None:
    (model / "README.md").write_text("---\ntags: [\n---\nWords.\n")
    evaluated(model, pairs, tmp_path / "out", "--metrics", "l1", "--no-checks", "--update-card")
    assert "its metadata cannot be read" in capsys.readouterr().out
    assert (model / "README.md").read_text().endswith("Words.\n")


def test_sets_that_do_not_go_with_the_model_are_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(run / "model")
    one = write_pairs(tmp_path / "one" / "val", 1)
    error = refused(capsys, model, str(one), "--split", "val")
    assert "split val: 1 pair;" in error and "2 or more" in error
    six = write_pairs(tmp_path / "six" / "train", 6)
    error = refused(capsys, model, str(six))
    assert "split train, held out: 1 pair;" in error and "on all of it with --split train" in error
    deep = write_pairs(tmp_path / "deep" / "val", 3, "I;16")
    error = refused(capsys, model, str(deep), "--split", "val")
    assert "3 of 3 pairs cannot be used" in error
    assert "16-bit gray" in error and "8-bit RGB is expected" in error


def test_a_set_without_training_pairs_is_measured_without_that_check(run: Path, tmp_path: Path) -> None:
    others = write_pairs(tmp_path / "pairs" / "test", 3)
    content = evaluated(run / "model", others, tmp_path / "out", "--split", "test", "--metrics", "l1")
    assert "memorisation" not in content["checks"]
    assert content["dataset"]["id"] == "pairs"
    assert not (tmp_path / "out" / "nearest.png").exists()


def test_pairs_that_are_the_other_way_round_are_pointed_out() -> None:
    """By the colours of label maps; of pairs of the same kind on both sides nothing can be told."""
    pairs = load_pairs(PairOptions("synthetic", image_size="64", max_train_pairs=2, max_validation_pairs=4)).validation
    photos = replace(pairs.formats["target"], palette=())
    assert not look_swapped(pairs) and look_swapped(replace(pairs, swap=True))
    backwards = replace(pairs, swap=True, source=pairs.target, target=pairs.source)  # of a model that makes label maps
    assert not look_swapped(backwards) and look_swapped(replace(backwards, swap=False))
    assert not look_swapped(replace(pairs, swap=True, source=photos, target=photos))
