"""docs/results.md, made from the files of the runs that `results_runs.py` did: no measured number is typed here.

python benchmarks/results_page.py --runs results --output docs/results.md
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))

import results_runs  # noqa: E402
from results_numbers import (  # noqa: E402
    BESIDE_PICTURES,
    SCORES,
    Result,
    against,
    flags,
    present,
    reach,
    read_results,
    reasons,
    shown,
    values,
)
from results_runs import BASE  # noqa: E402

SECTIONS = {
    "synthetic": "The embedded set: labels → picture",
    "facades": "Façades: labels → photo",
    "maps": "Maps: aerial photo → map",
    "aerial": "Maps: map → aerial photo",
    "edges2shoes": "Edges → shoes",
    "ablation": f"Ablation on façades: what is changed in `{BASE}`",
}
PUBLISHABLE = ("synthetic",)  # whose pictures are ours to show
ABLATIONS = tuple(results_runs.ABLATIONS)
ORDER = ("demo", *results_runs.PRESETS, *results_runs.VARIANTS)  # of the rows
SHUFFLED = "sources shuffled"
OVER_IMAGES = "†"  # after an interval over images, where others are over seeds
PAIRS_SHOWN = 3
PADDING = 2  # pixels between the images of a run's samples.png
COLUMNS = ("source", "generated", "target")  # there
Rows = dict[str, list[Result]]  # variant → its seeds


def page(results: Sequence[Result]) -> str:
    """The whole page."""
    found = {name: _rows(name, results) for name in SECTIONS}
    parts = [_introduction(results)]
    parts += [
        _section(name, rows)
        for name, rows in found.items()
        if rows and not (name in ABLATIONS and rows.keys() <= {*results_runs.PRESETS})
    ]
    return "\n\n".join([*parts, _commands(results)]) + "\n"


def _rows(section: str, results: Sequence[Result]) -> Rows:
    """The runs of a section by variant, in the order of the plan."""
    rows: Rows = {}
    members = [result for result in results if section in result.facts["sections"]]
    for result in sorted(members, key=lambda run: (ORDER.index(run.facts["variant"]), run.facts["seed"])):
        rows.setdefault(result.facts["variant"], []).append(result)
    return rows


def _introduction(results: Sequence[Result]) -> str:
    hardware = sorted({str(result.config.get("hardware")) for result in results})
    versions = sorted({f"torch {result.config['versions']['torch']}" for result in results})
    missing = "; ".join(reasons(results))
    return (
        "# Results\n\nYou want to know which preset to take, what its pictures look like, and what it reaches on known "
        "sets.\n\nTake `default` first. `strong` draws crisper windows, frames and outlines; it takes longer "
        "([training.md](training.md#presets) has by how much) and downloads 5 MB once. `paper` is for comparisons with "
        "Isola et al. 2017, `demo` for two minutes on the embedded set, whose pictures are framed alike. "
        "README says how long a training takes, [training.md]"
        "(training.md#when-the-pictures-are-not-good-enough) what each loss changes.\n\n"
        f"Made by `benchmarks/results_page.py` from {len(results)} runs on {'; '.join(hardware)} "
        f"({', '.join(versions)}). Every number comes from a run's own files. Several seeds give mean (smallest … "
        f"largest); one run gives its value. {OVER_IMAGES} after brackets: these are no seeds but the 95 % bootstrap "
        "interval of one run over its images. L1 is in [0, 1]; PSNR and SSIM have data range 1. *Class IoU* is the "
        "task score of the generated images. *Own gain* is how much nearer an output is to its own target than outputs "
        "of other sources are; *sharpness* is gradient energy, generated ÷ real; *grid* is the energy at the decoder's "
        "strides, generated ÷ real, and *gray levels* (of 255) how strong that pattern is; *flagged* are the checks "
        "that fired. `pix2pix-hub evaluate` says more of each in the `metrics.json` it writes."
        + (f"\n\nWithout a value here: {missing}." if missing else "")
    )


def _section(name: str, rows: Rows) -> str:
    results = [run for runs in rows.values() for run in runs]
    numbers = present(results)
    header = ["run", "seeds", *(number.title for number in numbers), "flagged"]
    base = rows.get(BASE, [])
    table, compared = [], 0
    for variant, runs in rows.items():
        cells = [shown(values(runs, number)) for number in numbers]
        if name in ABLATIONS and variant != BASE:
            marks = [against(number, values(runs, number), values(base, number)) for number in numbers]
            compared += sum(bool(mark) for mark in marks)
            cells = [
                f"**{cell}**" if mark in ("better", "worse") else cell for cell, mark in zip(cells, marks, strict=True)
            ]
        table.append([variant, str(len(runs)), *cells, flags(runs)])
    first = results[0].measured
    size = "x".join(str(side) for side in first["protocol"]["image_size"])
    about = f"Split {first['dataset']['split']}, {first['dataset']['pairs']} pairs at {size}, {_steps(results)} steps."
    if compared:
        about += _bold(len(base), compared)
    pictures = _pictures(name, rows) if name in PUBLISHABLE else ""
    return "\n\n".join(
        part for part in (f"## {SECTIONS[name]}", about, _markdown(header, table), _task_scores(rows), pictures) if part
    )


def _bold(seeds: int, compared: int) -> str:
    """What bold numbers of an ablation mean."""
    return (
        f" **Bold**: where one further run of `{BASE}` would fall only once in 20 times, judging by its {seeds} seeds: "
        f"further than {reach(seeds):.3g} of their standard deviations from their mean (95 % prediction interval), and "
        f"other in the digits shown. If no change did anything, about {compared / 20:.0f} of the {compared} numbers "
        "compared could be bold all the same."
    )


def _task_scores(rows: Rows) -> str:
    """The paper's scores, beside those of real photos and of shuffled sources."""
    scored = {variant: [run for run in runs if "segmentation" in run.measured] for variant, runs in rows.items()}
    scored = {variant: runs for variant, runs in scored.items() if runs}
    if not scored:
        return ""
    everything = [run for runs in scored.values() for run in runs]
    table, intervals = [], {}
    lines = [("real photos", everything[:1], "real")]  # the same images and judge in every run
    lines += [(variant, runs, "generated") for variant, runs in scored.items()]
    lines += [(SHUFFLED, everything, "shuffled")]
    for title, runs, kind in lines:
        scores = [run.measured["segmentation"][kind] for run in runs if kind in run.measured["segmentation"]]
        if scores:
            columns = [[score[name] for score in scores] for name in SCORES]
            intervals[title] = [_interval(column) for column in columns]
            table.append([title, *(_score(column) for column in columns)])
    task = everything[0].measured["segmentation"]["task"]
    header = ["", *(name.replace("_", " ") for name in SCORES)]
    below = _unclear({variant: intervals[variant] for variant in scored}, intervals.get(SHUFFLED, []))
    return f"Task score (`--task {task}`):\n\n" + _markdown(header, table) + below


def _interval(scores: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Of several runs what they span, of one its bootstrap interval over images."""
    found = [score["value"] for score in scores]
    low, high = scores[0]["ci95"] if len(found) == 1 else (min(found), max(found))
    return low, high


def _score(scores: Sequence[dict[str, Any]]) -> str:
    low, high = _interval(scores)
    mark = OVER_IMAGES if len(scores) == 1 else ""
    return f"{statistics.mean(score['value'] for score in scores):.3f} ({low:.3f} … {high:.3f}){mark}"


def _unclear(variants: dict[str, list[tuple[float, float]]], shuffled: list[tuple[float, float]]) -> str:
    """In words: the scores by which a run's outputs could as well come from other sources; empty if there are none."""
    found = []
    for variant, intervals in variants.items():
        pairs = zip(SCORES, intervals, shuffled, strict=False)  # without shuffled sources there is nothing to say
        names = [name.replace("_", " ") for name, (low, _), (_, high) in pairs if low <= high]
        found += [f"`{variant}` by {', '.join(names)}"] if names else []
    if not found:
        return ""
    return (
        f"\n\n**Not clearly above shuffled sources**: {'; '.join(found)}. There the interval begins below the end of "
        "theirs: the score does not show that the outputs follow their own sources."
    )


def _pictures(name: str, rows: Rows) -> str:
    """The same validation pairs by every variant's first seed, beside the numbers that might say what is seen."""
    first = next(iter(rows.values()))[0]
    numbers = [number for number in present([first]) if number.title in BESIDE_PICTURES]
    blank = [""] * len(numbers)
    table = [["source", _image(f"{name}-source", "source"), *blank]]
    for variant, runs in rows.items():
        cells = [shown(values(runs[:1], number)) for number in numbers]
        table.append([variant, _image(runs[0].folder.name, variant), *cells])
    table.append(["target", _image(f"{name}-target", "target"), *blank])
    return _markdown(["run", f"first validation pairs, seed {first.facts['seed']}", *(n.title for n in numbers)], table)


def _image(file: str, words: str) -> str:
    return f"![{words}](results/{file}.png)"


def _commands(results: Sequence[Result]) -> str:
    series = dict.fromkeys(result.facts["series"] for result in results)
    return (
        "## Exact commands\n\nDATA is the folder that holds the sets; `--list` prints the commands of each run.\n\n"
        + "\n".join(f"    {command}" for command in series)
    )


def _steps(results: Sequence[Result]) -> str:
    steps = sorted({result.entries("train")[-1]["step"] for result in results})
    return " to ".join(f"{count:,}" for count in dict.fromkeys((steps[0], steps[-1])))


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows))


def strip(result: Result, column: str) -> Image.Image:
    """The first pairs of a run's samples, side by side: one of `COLUMNS`."""
    height, width = result.measured["protocol"]["image_size"]
    with Image.open(result.folder / "model" / "samples.png") as samples:
        left = PADDING + COLUMNS.index(column) * (width + PADDING)
        titles = (samples.height - PADDING) % (height + PADDING)  # pixels of their line, which earlier grids lack
        tops = range(titles + PADDING, samples.height, height + PADDING)[:PAIRS_SHOWN]
        cells = [samples.crop((left, top, left + width, top + height)) for top in tops]
    whole = Image.new("RGB", (len(cells) * (width + PADDING) - PADDING, height), "white")
    for place, cell in enumerate(cells):
        whole.paste(cell, (place * (width + PADDING), 0))
    return whole


def write_page(runs: Path, output: Path) -> None:
    """The page, and the pictures that may be shown, in a folder beside it."""
    results = read_results(runs)
    if not results:
        raise SystemExit(f"{runs} holds no finished run (RUN/evaluation/metrics.json): see results_runs.py.")
    output.parent.mkdir(parents=True, exist_ok=True)
    for name in PUBLISHABLE:
        rows = _rows(name, results)
        shown_runs = [found[0] for found in rows.values()]
        pictures = {run.folder.name: strip(run, "generated") for run in shown_runs}
        for column in ("source", "target") if shown_runs else ():
            pictures[f"{name}-{column}"] = strip(shown_runs[0], column)
        for file, picture in pictures.items():
            (output.parent / "results").mkdir(exist_ok=True)
            picture.save(output.parent / "results" / f"{file}.png", optimize=True)
    output.write_text(page(results))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=Path, default=Path("results"), help="folder that results_runs.py filled")
    parser.add_argument(
        "--output", type=Path, default=Path("docs/results.md"), help="the page; its pictures go to results/ beside it"
    )
    options = parser.parse_args()
    write_page(options.runs, options.output)
