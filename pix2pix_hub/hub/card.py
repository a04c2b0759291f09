"""The model card, `README.md`: made from the files of an export, nothing typed by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from pix2pix_hub.export import CARD_NAME, CONFIG_NAME, SAMPLES_NAME, Export, Preprocessor
from pix2pix_hub.image.format import PixelFormat
from pix2pix_hub.metrics import METRICS
from pix2pix_hub.util import UserError

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
        place: what `from_pretrained` is given in the card: a repository (`user/name`), or a folder.
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
        if known_license is not None:
            adapted = ModelCard(text)
            adapted.data["license"] = known_license
            text = str(adapted.content)
    else:
        facts = _facts(export, place)
        entered: list[EvalResult] = []  # by `pix2pix-hub evaluate`
        if local is not None and FRONT_MATTER.match(local):
            entered = ModelCard(local, ignore_metadata_errors=True).data.get("eval_results") or []
        data = _card_data(export.run, _metrics(export), known_license or DEFAULT_LICENSE, facts["name"], entered)
        text = re.sub(r"\n{3,}", "\n\n", ModelCard.from_template(data, template_path=str(TEMPLATE), **facts).content)
    return f"{text.rstrip()}\n\n{MARKER}\n{_persons_text(local, published)}".rstrip() + "\n"


def _parts(card: str) -> tuple[str, str]:
    """What was made of a card, and what a person wrote."""
    made, marker, text = card.partition(MARKER)
    if not marker and (found := OLD_MARKERS.search(card)) is not None:
        return card[: found.start()] + card[found.end() :], found["text"].strip()
    return made, text.strip()


def _persons_text(local: str | None, published: str | None) -> str:
    """What a person wrote in the local card and in the published one (None: there is none): where they differ, both.

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


def _metrics(export: Export) -> dict[str, tuple[str, float]]:
    """Metric → its name for people, value."""
    found = export.metrics
    values = {key: (name, found[key]["value"]) for key, name in METRIC_NAMES.items() if key in found}
    return {key: (name, value) for key, (name, value) in values.items() if value is not None}


def _card_data(
    run: dict[str, Any], metrics: dict[str, tuple[str, float]], license: str, name: str, entered: list[EvalResult]
) -> ModelCardData:
    dataset = run.get("dataset", {})
    started_from = _started_from(run) or ""
    results = eval_results(metrics, dataset["id"], "validation", _hub_commit(dataset)) if dataset else []
    results += [old for old in entered if not any(old.is_equal_except_value(new) for new in results)]
    return ModelCardData(
        library_name="pix2pix-hub",
        pipeline_tag=TASK,
        license=license,
        tags=TAGS,
        datasets=[dataset["id"]] if _hub_commit(dataset) else None,
        base_model=started_from if re.fullmatch(r"[\w.-]+/[\w.-]+", started_from) else None,
        metrics=list(metrics) or None,
        model_name=name if results else None,
        eval_results=results or None,
    )


def eval_results(
    values: Mapping[str, tuple[str, float]], dataset: str, split: str, revision: str | None
) -> list[EvalResult]:
    """What a card's metadata say of measured values.

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


def _facts(export: Export, place: str | Path) -> dict[str, Any]:
    """Everything that the template names."""
    run, pixels, stood = export.run, Preprocessor.from_folder(export.folder), export.metrics
    dataset, parameters, versions = (run.get(name, {}) for name in ("dataset", "parameters", "versions"))
    name, commit = dataset.get("id", ""), _hub_commit(dataset)
    source_file = "source.png" if _is_picture(pixels.source) else "source.npy"
    call = f'pipe("{source_file}").save("generated.png")'
    return {
        "name": place.split("/")[1] if isinstance(place, str) else f"pix2pix-{Path(name or place).name}",
        "model_id": str(place),
        "architecture": export.read(CONFIG_NAME).get("architecture"),
        "source": _images(pixels.source),
        "target": _images(pixels.target),
        "source_file": source_file,
        "call": call if _is_picture(pixels.target) else f'generated = pipe("{source_file}")  # an array',
        "size": "{}x{}".format(*pixels.image_size),
        "resize": pixels.resize,
        "has_samples": (export.folder / SAMPLES_NAME).is_file(),
        "has_discriminator": export.has_discriminator,
        "dataset": dataset,
        "dataset_link": f"[{name}](https://huggingface.co/datasets/{name})" if commit else f"`{name}`",
        "dataset_version": f"revision `{commit}`" if commit else f"fingerprint `{dataset.get('fingerprint')}`",
        "metrics": [{"name": title, "text": f"{value:#.4g}".rstrip(".")} for title, value in _metrics(export).values()],
        "validation_pairs": stood.get("pairs"),
        "epoch": stood.get("epoch"),
        "step": stood.get("step"),
        "command": run.get("command"),
        "options": run.get("options", {}),
        "started_from": _started_from(run),
        "hardware": run.get("hardware") or f"{run.get('processes')} x {run.get('device')}",
        "mixed_precision": run.get("mixed_precision"),
        "time": _duration(stood.get("seconds")),
        "parameters": ", ".join(f"{network} {count:,}" for network, count in parameters.items()),
        "versions": ", ".join(f"{package} {number}" for package, number in versions.items()),
    }


def _started_from(run: dict[str, Any]) -> str | None:
    """The published model that training began with, without its revision."""
    options = run.get("options", {})
    name = options.get("init_from") or options.get("resume_from_hub")  # an option of earlier versions
    return name.split("@")[0] if name else None


def _images(side: PixelFormat) -> str:
    return side.describe() if side.mode == "labels" else f"{side.describe()} images"


def _is_picture(side: PixelFormat) -> bool:
    """Whether Pillow has a mode for such pixels."""
    return side.mode != "channels" and side.dtype in (("uint8", "uint16") if side.mode == "gray" else ("uint8",))


def _hub_commit(dataset: dict[str, Any]) -> str | None:
    """Of a data set from the Hub, whose fingerprint is its commit."""
    fingerprint = dataset.get("fingerprint", "")
    return fingerprint if re.fullmatch(r"[0-9a-f]{40}", fingerprint) else None


def _license_of(card: str | None) -> str | None:
    metadata = FRONT_MATTER.match(card or "")
    found = re.search(r"^license: *([\w.-]+) *$", metadata.group(), re.MULTILINE) if metadata else None
    return found[1] if found else None


def _duration(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours} h"] * bool(hours) + [f"{minutes} min"] * bool(hours or minutes) + [f"{rest} s"] * (not hours)
    return " ".join(parts)


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
