"""The model card, `README.md`: made from the files of an export, nothing typed by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from pix2pix_hub.export import CARD_NAME, CONFIG_NAME, SAMPLES_NAME, Export, Preprocessor
from pix2pix_hub.hub.package import WHEEL_NAME, wheel
from pix2pix_hub.metrics import METRICS
from pix2pix_hub.util import UserError, counted, duration

MAX_CARD_BYTES = 1 << 17
# What stands below this line of a card is a person's: it survives every push.
MARKER = "<!-- pix2pix-hub: what stands below this line is yours, and survives every push -->"
# Cards of earlier versions had that text between two lines.
OLD_MARKERS = re.compile(
    r"(<!-- What stands between the next two lines is yours[^\n]*-->\n)?<!-- pix2pix-hub: keep ?\w* -->\n"
    r"(?P<text>(?:(?!<!-- pix2pix-hub: keep).)*?)\n?<!-- pix2pix-hub: end -->\n*",  # linear, whatever the text
    re.DOTALL,
)
FRONT_MATTER = re.compile(r"\A\s*---\n.*?\n---\s*\n", re.DOTALL)
TEMPLATE = Path(__file__).with_name("card_template.md")
INSTALLED = re.compile(
    "(With the `pix2pix_hub` package installed(, in the folder that holds `[^`]*`)?|After `pip install [^`]*`)"
)
DEFAULT_LICENSE = "apache-2.0"
TAGS = ["pix2pix", "image-to-image", "paired-image-translation", "gan", "pytorch"]
TASK, TASK_NAME = "image-to-image", "Image-to-image translation"
METRIC_NAMES = {  # key in metrics.json → its name for people; what is not here (losses) is not the card's
    key: f"{metric.title}, {metric.unit} ({'higher' if metric.higher_is_better else 'lower'} is better)"
    for key, metric in METRICS.items()
}


def write_card(folder: Path, place: str | Path, *, previous: Path | None = None, license: str | None = None) -> None:
    """Write the card of an export into it.

    Args:
        folder: the export.
        place: what `from_pretrained` is given in the card: a repository (`user/name[@revision]`), or a folder.
        previous: the card that this one replaces, whose person's part it takes over.
        license: of the weights; None: what the previous card says, else apache-2.0.
    """
    earlier = read_card(previous) if previous is not None else None
    (folder / CARD_NAME).write_text(make_card(folder, place, published=earlier, license=license))


def make_card(folder: Path, place: str | Path, *, published: str | None = None, license: str | None = None) -> str:
    """The card's whole text; one that came without a run's files (a converted model's) stays, but for the example.

    Args:
        folder: the export; a card in it gives the person's part, and what `pix2pix-hub evaluate` entered.
        place: as in `write_card`.
        published: text of the card that is on the Hub, whose person's part stays too.
        license: as in `write_card`.

    Raises:
        UserError: a file of the export is damaged, or does not say what it should.
    """
    try:
        return _made_card(Export(folder), place, published, license)
    except UserError:
        raise
    except Exception as error:  # YAML, the template and we ourselves stumble differently over what anybody may write
        raise UserError(f"no card can be made of {folder} ({error!r}): export the model again.") from error


def _made_card(export: Export, place: str | Path, published: str | None, license: str | None) -> str:
    local = read_card(export.folder / CARD_NAME)
    known_license = license or _license_of(published) or _license_of(local)
    if local is not None and not export.run:  # it was written with the export: its example names the new place
        text = re.sub(r'(?<=from_pretrained\(")[^"]*(?="\))', lambda _: str(place), _parts(local)[0])
        text = INSTALLED.sub(lambda _: _installed(place), text)
        if known_license is not None:
            adapted = ModelCard(text)
            adapted.data["license"] = known_license
            text = str(adapted.content)
    else:
        found = export.metrics
        values = {key: (name, found[key]["value"]) for key, name in METRIC_NAMES.items() if key in found}
        metrics = {key: (name, value) for key, (name, value) in values.items() if value is not None}
        facts = _facts(export, place, metrics)
        entered: list[EvalResult] = []  # by `pix2pix-hub evaluate`
        if local is not None and FRONT_MATTER.match(local):
            entered = ModelCard(local, ignore_metadata_errors=True).data.get("eval_results") or []
        data = _card_data(metrics, known_license or DEFAULT_LICENSE, facts, entered)
        text = re.sub(r"\n{3,}", "\n\n", ModelCard.from_template(data, template_path=str(TEMPLATE), **facts).content)
    return f"{text.rstrip()}\n\n{MARKER}\n{_persons_text(local, published)}".rstrip() + "\n"


def _parts(card: str) -> tuple[str, str]:
    """Split a card into the text that was generated and the text that a person wrote."""
    made, marker, text = card.partition(MARKER)
    if not marker and (found := OLD_MARKERS.search(card)) is not None:
        return card[: found.start()] + card[found.end() :], found["text"].strip()
    return made, text.strip()


def _persons_text(local: str | None, published: str | None) -> str:
    """Join what a person wrote in the local card and in the published one (None: there is none).

    A published card without a marker was not made here: all of it is kept.
    """
    here = _parts(local)[1] if local is not None else ""
    if published is None:
        return here
    made_here = MARKER in published or OLD_MARKERS.search(published) is not None
    there = _parts(published)[1] if made_here else FRONT_MATTER.sub("", published).strip()
    if here in there:
        return there
    return here if there in here else f"{there}\n\n{here}"


def _card_data(
    metrics: dict[str, tuple[str, float]], license: str, facts: dict[str, Any], entered: list[EvalResult]
) -> ModelCardData:
    dataset, commit, started_from = facts["dataset"], facts["commit"], facts["started_from"] or ""
    results = eval_results(metrics, dataset["id"], "validation", commit) if dataset else []
    results += [old for old in entered if not any(old.is_equal_except_value(new) for new in results)]
    return ModelCardData(
        library_name="pix2pix-hub",
        pipeline_tag=TASK,
        license=license,
        tags=TAGS,
        datasets=[dataset["id"]] if commit else None,
        base_model=started_from if re.fullmatch(r"[\w.-]+/[\w.-]+", started_from) else None,
        metrics=list(metrics) or None,
        model_name=facts["name"] if results else None,
        eval_results=results or None,
    )


def eval_results(
    values: Mapping[str, tuple[str, float]], dataset: str, split: str, revision: str | None
) -> list[EvalResult]:
    """Make the entries of a card's metadata for measured values.

    Args:
        values: metric → its name for people, value.
        dataset: its id on the Hub, or what it is called here.
        split: of the data set.
        revision: commit on the Hub; None: the data set is a local one, whose type is its name in small letters.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", dataset.lower()).strip("-") or "local"
    return [
        EvalResult(
            task_type=TASK,
            task_name=TASK_NAME,
            dataset_type=dataset if revision else slug,
            dataset_name=dataset,
            dataset_split=split,
            dataset_revision=revision,
            metric_type=key,
            metric_name=name_for_people,
            metric_value=round(value, 6),
        )
        for key, (name_for_people, value) in values.items()
    ]


def _facts(export: Export, place: str | Path, metrics: dict[str, tuple[str, float]]) -> dict[str, Any]:
    """Everything that the template names."""
    run, pixels, stood = export.run, Preprocessor.from_folder(export.folder), export.metrics
    dataset, parameters, versions = (run.get(name, {}) for name in ("dataset", "parameters", "versions"))
    name, fingerprint, options = dataset.get("id", ""), dataset.get("fingerprint", ""), run.get("options", {})
    commit = fingerprint if re.fullmatch(r"[0-9a-f]{40}", fingerprint) else None  # else the data set is a local one
    started_from = options.get("init_from") or options.get("resume_from_hub")  # an option of earlier versions
    kinds, has_mode = [], []  # of source and target: in words; whether Pillow has a mode for such pixels
    for side in (pixels.source, pixels.target):
        kinds.append(side.describe() + ("" if side.mode == "labels" else " images"))
        deep_gray = side.mode == "gray" and side.dtype == "uint16"
        has_mode.append(side.mode != "channels" and (side.dtype == "uint8" or deep_gray))
    source_file = "source.png" if has_mode[0] else "source.npy"
    call = f'pipe("{source_file}").save("generated.png")'
    return {
        "name": f"pix2pix-{Path(name or place).name}" if isinstance(place, Path) else re.split("[/@]", place)[1],
        "model_id": str(place),
        "installed": _installed(place),
        "architecture": export.read(CONFIG_NAME).get("architecture"),
        "source": kinds[0],
        "target": kinds[1],
        "source_file": source_file,
        "call": call if has_mode[1] else f'generated = pipe("{source_file}")  # an array',
        "size": "{}x{}".format(*pixels.image_size),
        "resize": pixels.resize,
        "has_samples": (export.folder / SAMPLES_NAME).is_file(),
        "has_discriminator": export.has_discriminator,
        "dataset": dataset,
        "commit": commit,
        "dataset_link": f"[{name}](https://huggingface.co/datasets/{name})" if commit else f"`{name}`",
        "dataset_version": f"revision `{commit}`" if commit else f"fingerprint `{fingerprint}`",
        "metrics": [{"name": title, "text": f"{value:#.4g}".rstrip(".")} for title, value in metrics.values()],
        "validation_pairs": counted(pairs, "validation pair")
        if type(pairs := stood.get("pairs")) is int
        else "validation pairs",
        "epoch": stood.get("epoch"),
        "step": stood.get("step"),
        "command": run.get("command"),
        "options": options,
        "started_from": started_from.split("@")[0] if started_from else None,  # the model, without its revision
        "hardware": run.get("hardware") or f"{run.get('processes')} x {run.get('device')}",
        "mixed_precision": run.get("mixed_precision"),
        "time": None if (seconds := stood.get("seconds")) is None else duration(seconds),
        "parameters": ", ".join(f"{network} {count:,}" for network, count in parameters.items()),
        "versions": ", ".join(f"{package} {number}" for package, number in versions.items()),
    }


def _installed(place: str | Path) -> str:
    """What whoever reads the card of a model at `place` has to do first."""
    if isinstance(place, Path) or wheel() is None:
        inside = isinstance(place, Path) and not place.is_absolute() and len(place.parts) > 1
        beside = f", in the folder that holds `{Path(place).parts[0]}/`" if inside else ""
        return f"With the `pix2pix_hub` package installed{beside}"
    repository, _, revision = str(place).partition("@")
    branch = quote(revision or "main", safe="")
    return f"After `pip install https://huggingface.co/{repository}/resolve/{branch}/{WHEEL_NAME}`"


def _license_of(card: str | None) -> str | None:
    metadata = FRONT_MATTER.match(card or "")
    found = re.search(r"^license: *([\w.-]+) *$", metadata.group(), re.MULTILINE) if metadata else None
    return found[1] if found else None


def read_card(path: Path) -> str | None:
    """A card's text, without more than one empty line in a row; None where there is none.

    Raises:
        UserError: more than `MAX_CARD_BYTES`, or not UTF-8.
    """
    if not path.is_file():
        return None
    with path.open("rb") as file:
        data = file.read(MAX_CARD_BYTES + 1)
    try:
        if len(data) > MAX_CARD_BYTES:
            raise ValueError(f"more than {MAX_CARD_BYTES} bytes")
        text = data.decode().replace("\r\n", "\n").replace("\r", "\n")
        return re.sub(r"\n{3,}", "\n\n", text)  # over many, the client's search for metadata takes hours
    except ValueError as error:
        raise UserError(f"{path} is no model card ({error}): mend it, or take it away.") from error
