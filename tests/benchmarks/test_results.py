"""The results page: its runs can be typed, are done once, and every number on the page is theirs."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import results_numbers  # noqa: E402
import results_page  # noqa: E402
import results_runs  # noqa: E402

from pix2pix_hub.cli import parse_training_config  # noqa: E402
from pix2pix_hub.config import EvaluationOptions  # noqa: E402

BUDGET = ["--image-size", "128"]
PLAN = results_runs.plan(BUDGET, 1000)
SIZE = 16
SCORES = ("pixel_accuracy", "class_accuracy", "class_iou")


def test_every_command_of_the_plan_can_be_typed() -> None:
    known = {"--" + field.name.replace("_", "-") for field in fields(EvaluationOptions)}
    for run in PLAN:
        training, measuring = run.commands("data", "results")
        config = parse_training_config(training[1:])
        assert (config.seed, config.output_dir) == (run.seed, f"results/{run.name}")
        assert config.max_steps == 1000
        assert {word for word in measuring if word.startswith("--")} <= known
    assert len({run.name for run in PLAN}) == len(PLAN)


def test_the_plan_is_what_the_page_promises() -> None:
    for section in ("facades", "maps", "aerial", "edges2shoes"):
        rows = [(run.variant, run.seed) for run in PLAN if section in run.sections]
        assert sorted(rows) == sorted((p, s) for p in ("paper", "default", "strong") for s in (0, 1, 2))
    for section in results_page.ABLATIONS:
        ablation = [run for run in PLAN if section in run.sections]
        rows = ("default", "strong", *results_runs.VARIANTS)
        assert [(run.variant, run.seed) for run in ablation] == [(row, seed) for row in rows for seed in (0, 1, 2)]
        assert len({run.training for run in ablation}) == len(rows)
    assert {section for run in PLAN for section in run.sections} == set(results_page.SECTIONS)


class Pretended:
    """Stands for `subprocess.run`: leaves what the commands would leave, or breaks off."""

    def __init__(self, breaks_off: bool = False) -> None:
        self.commands: list[list[str]] = []
        self.breaks_off = breaks_off

    def __call__(self, command: Sequence[str]) -> None:
        self.commands.append(list(command[1:]))
        words = self.commands[-1]
        if words[0] == "train_accelerate.py":
            folder = Path(words[words.index("--output-dir") + 1])
            (folder / "model").mkdir(parents=True, exist_ok=True)
            (folder / "training_config.json").write_text("{}")
            (folder / "model" / "metrics.json").write_text("{}")
            if self.breaks_off:  # which leaves the model as it is
                raise KeyboardInterrupt
        else:
            folder = Path(words[words.index("--output") + 1])
            folder.mkdir()
            (folder / "metrics.json").write_text("{}")


def test_a_stopped_series_goes_on_where_it_was(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        results_runs.carry_out(PLAN[0], "data", tmp_path, Pretended(breaks_off=True))
    again, last = Pretended(), Pretended()
    assert results_runs.carry_out(PLAN[0], "data", tmp_path, again)
    assert again.commands[0][-1] == "--resume"
    assert again.commands[1][:3] == ["-m", "pix2pix_hub.cli", "evaluate"]
    assert not results_runs.carry_out(PLAN[0], "data", tmp_path, last)
    assert last.commands == []
    facts = json.loads((tmp_path / PLAN[0].name / "run.json").read_text())
    assert facts["commands"][0].startswith("python train_accelerate.py --dataset DATA/facades --preset paper")
    assert str(tmp_path) not in json.dumps(facts)
    assert facts["series"].endswith("--runs runs --image-size 128 --max-steps 1000 --shrink 1 --learning-rate 0.0002")


def test_widths_are_divided_by_what_the_series_says() -> None:
    (run,) = [run for run in results_runs.plan(BUDGET, 1000, shrink=2) if run.name == "facades-strong-seed0"]
    config = parse_training_config(run.commands("data", "results")[0][1:])
    assert (config.base_channels, config.discriminator_base_channels) == (32, None)
    assert run.series[-4:-2] == ("--shrink", "2")


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What the script says when it stops before it runs anything."""
    with pytest.raises(SystemExit) as stopped:
        results_runs.main(words)
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_what_cannot_be_run_is_refused_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(results_runs.subprocess, "run", lambda command, **_: started.append(command))
    sets, runs = tmp_path / "sets", tmp_path / "runs"
    common = ["--data", str(sets), "--runs", str(runs), "--only"]
    assert "--only facade5" in refusal(capsys, *common, "facade5")
    assert f"no folder {sets}." in refusal(capsys, *common, "synthetic-demo-seed0")
    (sets / "facades").mkdir(parents=True)
    assert f"no folder {sets / 'maps'}." in refusal(capsys, *common, "default-seed1")
    (run,) = [run for run in PLAN if run.name == "facades-default-seed1"]
    results_runs.carry_out(run, str(sets), runs, Pretended())
    assert f"{runs / run.name} holds a run that other commands made" in refusal(capsys, *common, "facades-default")
    budget = ["--image-size", "128", "--batch-size", "4"]
    (same,) = [run for run in results_runs.plan(budget, 1000) if run.name == "facades-default-seed0"]
    results_runs.carry_out(same, str(sets), runs, Pretended())
    results_runs.main([*common, same.name])  # finished with these very commands: left alone
    capsys.readouterr()
    results_runs.main([*common, "maps-paper-seed1", "--list"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0].startswith(f"python train_accelerate.py --dataset {sets}/maps")
    assert not started


def write_run(runs: Path, run: results_runs.Run, **numbers: float) -> None:
    """A finished run whose numbers are known."""
    folder = runs / run.name
    (folder / "evaluation").mkdir(parents=True)
    value = {"ssim": 0.5, "score": 0.6, "shuffled": 0.3, "ratio": 0.9, "l1": 0.2, "grid": 1.0} | numbers
    scores, shuffled = (
        {name: {"value": value[kind], "ci95": [value[kind] - 0.09, value[kind] + 0.11]} for name in SCORES}
        for kind in ("score", "shuffled")
    )
    measured: dict[str, Any] = {
        "l1": {"value": value["l1"], "ci95": [0.1, 0.3]},
        "ssim": {"value": value["ssim"], "ci95": None},
        "fid": {"value": None, "reason": "net.pth could not be downloaded (no network): put it into /home/me"},
        "checks": {
            "sharpness": {"ratio": value["ratio"], "fired": False},
            "checkerboard": {"ratio": value["grid"], "amplitude": 2 / 255, "fired": value["grid"] > 2},
        },
        "segmentation": {"task": "segmentation", "real": scores, "generated": scores, "shuffled": shuffled},
        "protocol": {"image_size": [SIZE, SIZE]},
        "dataset": {"split": "val", "pairs": 100},
    }
    log = [
        {"event": "validation", "step": 10, "l1": 0.41, "train_g_loss": 29.0, "train_d_loss": 1.3},
        {"event": "train", "step": 1000},
        {"event": "validation", "step": 1000, "l1": value["l1"], "train_g_loss": 21.0, "train_d_loss": 0.7},
    ]
    facts = {
        "sections": run.sections, "variant": run.variant, "seed": run.seed, "dataset": run.dataset,
        "series": "python benchmarks/results_runs.py --max-steps 1000",
        "commands": [f"python train_accelerate.py --output-dir {run.name}", "python -m pix2pix_hub.cli evaluate"],
    }  # fmt: skip
    (folder / "evaluation" / "metrics.json").write_text(json.dumps(measured))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in log))
    (folder / "run.json").write_text(json.dumps(facts))
    (folder / "training_config.json").write_text(
        json.dumps({"hardware": "1 x test machine", "versions": {"torch": "2.99"}})
    )
    samples = Image.new("RGB", (3 * (SIZE + 2) + 2, 4 * (SIZE + 2) + 2), "white")
    for row in range(4):
        for column in range(3):
            place = (2 + column * (SIZE + 2), 2 + row * (SIZE + 2))
            samples.paste((100 * column, 60 * row, run.seed), (*place, place[0] + SIZE, place[1] + SIZE))
    (folder / "model").mkdir()
    samples.save(folder / "model" / "samples.png")


def table_under(text: str, heading: str) -> list[dict[str, str]]:
    """The first table after a heading."""
    lines = text.split(f"## {heading}")[1].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| "))
    rows = []
    for line in lines[start:]:
        if not line.startswith("| "):
            break
        rows.append([cell.strip() for cell in line.strip("| ").split(" | ")])
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


@pytest.fixture
def page_of(tmp_path: Path) -> Any:
    def make(**numbers: float) -> str:
        runs = tmp_path / f"runs{len(list(tmp_path.iterdir()))}"
        for section in ("facades", "synthetic"):
            unchanged = [run for run in PLAN if run.sections[0] == section and run.variant == "default"]
            for run, l1 in zip(unchanged, (0.16, 0.17, 0.21), strict=True):
                write_run(runs, run, l1=l1, grid=7.0, **numbers)
        changed = {run.variant: run for run in PLAN if run.sections == ("ablation",) and run.seed == 0}
        write_run(runs, changed["hinge loss"], l1=0.22, grid=7.0)
        write_run(runs, changed["perceptual loss"], l1=0.4, grid=1.1)
        output = tmp_path / "docs" / "results.md"
        results_page.write_page(runs, output)
        return output.read_text()

    return make


def test_the_page_says_what_the_runs_say(page_of: Any, tmp_path: Path) -> None:
    text = page_of()
    (row,) = table_under(text, "Façades: labels → photo")
    assert row == {
        "run": "default", "seeds": "3", "L1": "0.18 (0.16 … 0.21)", "SSIM": "0.5 (0.5 … 0.5)",
        "class IoU": "0.6 (0.6 … 0.6)", "sharpness": "0.9 (0.9 … 0.9)", "grid": "7 (7 … 7)",
        "gray levels": "2 (2 … 2)", "flagged": "checkerboard (3 of 3)",
    }  # fmt: skip
    assert "Split val, 100 pairs at 16x16, 1,000 steps." in text
    assert "| real photos | 0.600 (0.510 … 0.710)† |" in text  # one run's images
    assert "| default | 0.600 (0.600 … 0.600) |" in text  # seeds
    assert "1 x test machine" in text and "torch 2.99" in text
    assert "Without a value here: fid: net.pth could not be downloaded" in text and "/home" not in text
    commands = text.split("## Exact commands")[1]
    assert "    python benchmarks/results_runs.py --max-steps 1000\n" in commands
    for run in tmp_path.glob("runs*/ablation-*"):
        shutil.rmtree(run)
    results_page.write_page(next(tmp_path.glob("runs*")), tmp_path / "presets.md")
    assert "Ablation" not in (tmp_path / "presets.md").read_text()


def test_an_ablation_marks_what_another_seed_would_hardly_reach(page_of: Any) -> None:
    rows = {row["run"]: row for row in table_under(page_of(), "Ablation on façades")}
    assert [rows[name]["L1"] for name in rows] == ["0.18 (0.16 … 0.21)", "0.22", "**0.4**"]
    assert [rows[name]["grid"] for name in rows] == ["7 (7 … 7)", "7", "**1.1**"]
    assert [rows[name]["flagged"] for name in rows] == ["checkerboard (3 of 3)", "checkerboard", "–"]
    assert list(rows) == ["default", "hinge loss", "perceptual loss"]


def test_better_and_worse_begin_where_the_prediction_interval_ends() -> None:
    """scipy's own interval of one further draw; and of draws from one distribution 19 in 20 lie inside."""
    (l1,) = [number for number in results_numbers.NUMBERS if number.title == "L1"]
    base = (0.1, 0.11, 0.15)
    edge = scipy.stats.t(2, loc=0.12, scale=np.std(base, ddof=1) * (4 / 3) ** 0.5).ppf([0.025, 0.975])
    verdicts = [results_numbers.against(l1, [x], base) for x in (*(edge + 1e-9), *(edge - 1e-9))]
    assert verdicts == ["as without", "worse", "better", "as without"]
    draws = np.random.default_rng(0).normal(size=(20_000, 4))
    means, deviations = draws[:, :3].mean(axis=1), draws[:, :3].std(axis=1, ddof=1)
    inside = abs(draws[:, 3] - means) <= results_numbers.reach(3) * deviations
    assert inside.mean() == pytest.approx(0.95, abs=0.006)  # four deviations of such a share
    assert results_numbers.reach(3) == pytest.approx(4.97, abs=0.005)
    prints_the_same = results_numbers.against(l1, [0.16404], [0.164, 0.164, 0.164])
    assert prints_the_same == "as without"
    assert results_numbers.against(l1, [0.1646], [0.164, 0.164, 0.164]) == "worse"


def test_scores_no_better_than_those_of_shuffled_sources_are_named(page_of: Any) -> None:
    assert "Not clearly above" not in page_of(score=0.6, shuffled=0.3)
    text = page_of(score=0.1, shuffled=0.1)
    assert "**Not clearly above shuffled sources**: `default` by pixel accuracy, class accuracy, class iou. " in text


def test_pictures_are_the_first_pairs_of_the_embedded_set_side_by_side(page_of: Any, tmp_path: Path) -> None:
    shown = re.findall(r"!\[.*?\]\(results/(.*?).png\)", page_of())
    first = ["synthetic-source", "synthetic-default-seed0", "synthetic-target"]
    assert shown == first
    results = tmp_path / "docs" / "results"
    assert {path.stem for path in results.iterdir()} == set(shown)
    for place, name in enumerate(first):
        picture = Image.open(results / f"{name}.png")
        assert picture.size == (3 * (SIZE + 2) - 2, SIZE)
        centers = [picture.getpixel((SIZE // 2 + pair * (SIZE + 2), SIZE // 2)) for pair in range(3)]
        assert centers == [(100 * place, 60 * pair, 0) for pair in range(3)]


def test_other_numbers_make_another_page(page_of: Any) -> None:
    """Whatever is measured appears on the page: nothing in its tables is typed."""
    before = page_of()
    for shown, changed in (
        ("0.123", {"ssim": 0.123}), ("0.456", {"score": 0.456}), ("0.789", {"ratio": 0.789}),
        ("0.321", {"shuffled": 0.321}),
    ):  # fmt: skip
        assert shown not in before
        assert shown in page_of(**changed)


def test_a_folder_without_runs_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no finished run"):
        results_page.write_page(tmp_path, tmp_path / "page.md")
