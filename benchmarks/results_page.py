"""docs/results.md, made from the files of the runs that `results_runs.py` did: no measured number is typed here.

python benchmarks/results_page.py --runs results --output docs/results.md
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECTIONS = {
    "facades": "Façades: labels → photo",
    "maps": "Maps: aerial photo → map",
    "edges2shoes": "Edges → shoes",
    "ablation": "Ablation on façades: one thing changed in `default`",
    "synthetic": "The embedded set",
}
PUBLISHABLE = ("synthetic",)  # whose pictures are ours to show
# The specification's expectations: where training begins, and where it ends.
EXPECTED = {
    "G loss": ("train_g_loss", 2.0, 0.8),
    "D loss": ("train_d_loss", 0.6, 0.3),
    "L1": ("l1", 0.05, 0.04),
    "FID": ("fid", 50.0, 25.0),
}
ABSENT = "–"


@dataclass(frozen=True)
class Result:
    """What one run left behind."""

    facts: dict[str, Any]  # run.json
    measured: dict[str, Any]  # evaluation/metrics.json
    log: list[dict[str, Any]]  # metrics.jsonl
    config: dict[str, Any]  # training_config.json
    folder: Path


Column = tuple[str, Callable[[Result], float | None]]


def read_results(runs: Path) -> list[Result]:
    """Every finished run of a folder, in the order of their names."""
    results = []
    for path in sorted(runs.glob("*/evaluation/metrics.json")):
        folder = path.parents[1]
        log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        facts, config = (json.loads((folder / name).read_text()) for name in ("run.json", "training_config.json"))
        results.append(Result(facts, json.loads(path.read_text()), log, config, folder))
    return results


def page(results: Sequence[Result]) -> str:
    """The whole page."""
    found = [(name, [result for result in results if name in result.facts["sections"]]) for name in SECTIONS]
    parts = [_introduction(results)]
    parts += [_section(name, members) for name, members in found if members]
    parts += [_expectations(results), _commands(results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _introduction(results: Sequence[Result]) -> str:
    hardware = sorted({str(result.config.get("hardware")) for result in results})
    versions = sorted({f"torch {result.config['versions']['torch']}" for result in results})
    return (
        "# Results\n\n"
        f"Made by `benchmarks/results_page.py` from {len(results)} runs on {'; '.join(hardware)} "
        f"({', '.join(versions)}). Every number comes from a run's own files. Several seeds give mean (smallest … "
        "largest); one run gives its value and, for task scores, the 95 % bootstrap interval over images. L1 is in "
        "[0, 1]; PSNR and SSIM have data range 1. *Own gain* is how much nearer an output is to its own target than "
        "outputs of other sources are; *sharpness* is gradient energy, generated ÷ real; *grid* is the energy at the "
        "decoder's strides, generated ÷ real, and *gray levels* (of 255) how strong that pattern is. `pix2pix-hub "
        "evaluate` says more of each in the `metrics.json` it writes."
    )


def _section(name: str, results: Sequence[Result]) -> str:
    rows: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda result: (result.facts["sections"][0] == "ablation", result.facts["seed"])):
        rows.setdefault(result.facts["variant"], []).append(result)
    columns = [column for column in _columns() if any(column[1](result) is not None for result in results)]
    header = ["run", "seeds", *(title for title, _ in columns)]
    table = [[variant, str(len(runs)), *(_cell(runs, value) for _, value in columns)] for variant, runs in rows.items()]
    first = results[0].measured
    size = "x".join(str(side) for side in first["protocol"]["image_size"])
    about = f"Split {first['dataset']['split']}, {first['dataset']['pairs']} pairs at {size}, {_steps(results)} steps."
    parts = [f"## {SECTIONS[name]}", about, _markdown(header, table), _task_scores(rows)]
    if name in PUBLISHABLE:
        parts += [f"![{variant}: source, generated, target]({_picture(runs[0])})" for variant, runs in rows.items()]
    return "\n\n".join(part for part in parts if part)


def _columns() -> list[Column]:
    """What is shown of a run, where it has it."""

    def metric(name: str) -> Callable[[Result], float | None]:
        return lambda result: result.measured.get(name, {}).get("value")

    def check(name: str, measure: str, scale: float = 1) -> Callable[[Result], float | None]:
        def value(result: Result) -> float | None:
            found = result.measured.get("checks", {}).get(name, {}).get(measure)
            return None if found is None else scale * found

        return value

    names = {"l1": "L1", "psnr": "PSNR (dB)", "ssim": "SSIM", "ms_ssim": "MS-SSIM", "lpips": "LPIPS", "fid": "FID"}
    columns: list[Column] = [(title, metric(name)) for name, title in (names | {"kid": "KID"}).items()]
    return [
        *columns,
        ("own gain", check("source_use", "gain")),
        ("sharpness", check("sharpness", "ratio")),
        ("grid", check("checkerboard", "ratio")),
        ("gray levels", check("checkerboard", "amplitude", 255)),
        ("minutes", lambda result: _train(result)[-1]["elapsed_seconds"] / 60),
    ]


def _cell(runs: Sequence[Result], value: Callable[[Result], float | None]) -> str:
    values = [number for run in runs if (number := value(run)) is not None]
    if not values:
        return ABSENT
    mean = f"{statistics.mean(values):.3g}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3g} … {max(values):.3g})"


def _task_scores(rows: dict[str, list[Result]]) -> str:
    """The paper's scores, beside those of real photos and of shuffled sources."""
    scored = {variant: [run for run in runs if "segmentation" in run.measured] for variant, runs in rows.items()}
    scored = {variant: runs for variant, runs in scored.items() if runs}
    if not scored:
        return ""
    names = ("pixel_accuracy", "class_accuracy", "class_iou")
    everything = [run for runs in scored.values() for run in runs]
    table = []
    lines = [("real photos", everything, "real")]
    lines += [(variant, runs, "generated") for variant, runs in scored.items()]
    lines += [("sources shuffled", everything, "shuffled")]
    for title, runs, kind in lines:
        scores = [run.measured["segmentation"][kind] for run in runs if kind in run.measured["segmentation"]]
        if scores:
            table.append([title, *(_score([score[name] for score in scores]) for name in names)])
    task = everything[0].measured["segmentation"]["task"]
    return f"Task score (`--task {task}`):\n\n" + _markdown(["", *(name.replace("_", " ") for name in names)], table)


def _score(scores: Sequence[dict[str, Any]]) -> str:
    values = [score["value"] for score in scores]
    if len(values) == 1:
        low, high = scores[0]["ci95"]
        return f"{values[0]:.3f} ({low:.3f} … {high:.3f})"
    return f"{statistics.mean(values):.3f} ({min(values):.3f} … {max(values):.3f})"


def _expectations(results: Sequence[Result]) -> str:
    """What the specification says training looks like, beside what it looked like with its own preset."""
    rows = []
    for section in SECTIONS:
        runs = [r for r in results if r.facts["sections"][0] == section and r.facts["variant"] == "default"]
        for title, (field, begins, ends) in EXPECTED.items() if runs else ():
            seen = [(_first(run, field), _last(run, field)) for run in runs]
            cells = [_mean([pair[place] for pair in seen]) for place in (0, 1)]
            rows.append([section, title, f"{begins:g} → {ends:g}", " → ".join(cells)])
    if not rows:
        return ""
    text = (
        "## What the specification expects\n\nPreset `default`, first epoch → last; training losses are means over the "
        "epoch, L1 is of the validation pairs. The generator's loss as optimised contains 100 times the L1 (in [-1, 1] "
        "units) and so cannot start where the specification says."
    )
    return text + "\n\n" + _markdown(["set", "", "expected", "seen"], rows)


def _first(result: Result, field: str) -> float | None:
    return _validations(result)[0].get(field)


def _last(result: Result, field: str) -> float | None:
    measured = result.measured.get(field, {}).get("value")
    return measured if measured is not None else _validations(result)[-1].get(field)


def _mean(values: Sequence[float | None]) -> str:
    numbers = [value for value in values if value is not None]
    return f"{statistics.mean(numbers):.3g}" if numbers else ABSENT


def _commands(results: Sequence[Result]) -> str:
    lines = [f"    {command}" for result in results for command in result.facts["commands"]]
    return "## Exact commands\n\nDATA is the folder that holds the sets.\n\n" + "\n".join(lines)


def _validations(result: Result) -> list[dict[str, Any]]:
    return [entry for entry in result.log if entry["event"] == "validation"]


def _train(result: Result) -> list[dict[str, Any]]:
    return [entry for entry in result.log if entry["event"] == "train"]


def _steps(results: Sequence[Result]) -> str:
    steps = sorted({_train(result)[-1]["step"] for result in results})
    return " to ".join(f"{count:,}" for count in dict.fromkeys((steps[0], steps[-1])))


def _picture(result: Result) -> str:
    """Where `write_page` puts a run's pictures, beside the page."""
    return f"results/{result.folder.name}.png"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows))


def write_page(runs: Path, output: Path) -> None:
    """The page, and the pictures that may be shown, in a folder of its name."""
    results = read_results(runs)
    if not results:
        raise SystemExit(f"{runs} holds no finished run (RUN/evaluation/metrics.json): see results_runs.py.")
    output.parent.mkdir(parents=True, exist_ok=True)
    text = page(results)
    for result in results:
        if f"({_picture(result)})" in text:
            (output.parent / "results").mkdir(exist_ok=True)
            shutil.copyfile(result.folder / "evaluation" / "images.png", output.parent / _picture(result))
    output.write_text(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=Path, default=Path("results"))
    parser.add_argument("--output", type=Path, default=Path("docs/results.md"))
    options = parser.parse_args()
    write_page(options.runs, options.output)
