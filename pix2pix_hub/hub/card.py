"""The model card, `README.md`: made from the files of an export, nothing typed by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from pix2pix_hub.export import CARD_NAME, CONFIG_NAME, SAMPLES_NAME, Export
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
# key in metrics.json: (name for people, format); what is not here (losses) is not the card's
METRICS = {
    "l1": ("L1, in [0, 1] units (lower is better)", ".4f"),
    "l2": ("L2, in [0, 1] units (lower is better)", ".4f"),
    "psnr": ("PSNR, data range 1 (dB, higher is better)", ".2f"),
    "ssim": ("SSIM, data range 1 (higher is better)", ".3f"),
    "ms_ssim": ("MS-SSIM (higher is better)", ".3f"),
    "lpips": ("LPIPS (lower is better)", ".4f"),
    "fid": ("FID (lower is better)", ".2f"),
    "kid": ("KID (lower is better)", ".5f"),
}


def write_card(folder: Path, model_id: str, *, previous: Path | None = None, license: str | None = None) -> None:
    """Write the card of an export into it.

    Args:
        folder: the export.
        model_id: what `from_pretrained` is given in the card: `user/name`, or a folder.
        previous: the card that this one replaces, whose person's part it takes over.
        license: of the weights; None: what the previous card says, else apache-2.0.
    """
    earlier = read_card(previous) if previous is not None else None
    (folder / CARD_NAME).write_text(make_card(folder, model_id, published=earlier, license=license))


def make_card(folder: Path, model_id: str, *, published: str | None = None, license: str | None = None) -> str:
    """The card's whole text; one that came without a run's files (a converted model's) stays, but for the example.

    Args:
        folder: the export; a card in it gives the person's part, and what `pix2pix-hub evaluate` entered.
        model_id: as in `write_card`.
        published: text of the card that is on the Hub, whose person's part stays too.
        license: as in `write_card`.

    Raises:
        UserError: a file of the export is damaged, or does not say what it should.
    """
    try:
        return _made_card(folder, model_id, published, license)
    except UserError:
        raise
    except Exception as error:  # YAML, the template and we ourselves stumble differently over what anybody may write
        raise UserError(f"no card can be made of {folder} ({error!r}): export the model again.") from error


def _made_card(folder: Path, model_id: str, published: str | None, license: str | None) -> str:
    export = Export(folder)
    local = read_card(folder / CARD_NAME)
    known_license = license or _license_of(published) or _license_of(local)
    if local is not None and not export.run:  # it was written with the export: its example names the new place
        text = re.sub(r'(?<=from_pretrained\(")[^"]*(?="\))', lambda _: model_id, _parts(local)[0])
        if known_license is not None:
            adapted = ModelCard(text)
            adapted.data["license"] = known_license
            text = str(adapted.content)
    else:
        metrics = {name: entry for name, entry in export.metrics.items() if entry != {"value": None}}
        facts = _facts(export, metrics, model_id)
        entered: list[EvalResult] = []  # by `pix2pix-hub evaluate`
        if local is not None and FRONT_MATTER.match(local):
            entered = ModelCard(local, ignore_metadata_errors=True).data.get("eval_results") or []
        data = _card_data(export.run, metrics, known_license or DEFAULT_LICENSE, facts["name"], entered)
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


def _card_data(
    run: dict[str, Any], metrics: dict[str, Any], license: str, name: str, entered: list[EvalResult]
) -> ModelCardData:
    dataset = run.get("dataset", {})
    started_from = _started_from(run)
    values = {key: (title, metrics[key]["value"]) for key, (title, _) in METRICS.items() if key in metrics}
    results = eval_results(values, dataset["id"], "validation", _hub_commit(dataset)) if dataset else []
    results += [old for old in entered if not any(old.is_equal_except_value(new) for new in results)]
    return ModelCardData(
        library_name="pix2pix-hub",
        pipeline_tag=TASK,
        license=license,
        tags=TAGS,
        datasets=[dataset["id"]] if _hub_commit(dataset) else None,
        base_model=started_from if started_from and _is_repo_id(started_from) else None,
        metrics=[key for key in METRICS if key in metrics] or None,
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


def _facts(export: Export, metrics: dict[str, Any], model_id: str) -> dict[str, Any]:
    """Everything that the template names."""
    run, pixels = export.run, export.pixels
    dataset, parameters, versions = (run.get(name, {}) for name in ("dataset", "parameters", "versions"))
    name, commit = dataset.get("id", ""), _hub_commit(dataset)
    source_file = "source.png" if _is_picture(pixels["source"]) else "source.npy"
    call = f'pipe("{source_file}").save("generated.png")'
    return {
        "name": model_id.split("/")[1] if _is_repo_id(model_id) else f"pix2pix-{Path(name or model_id).name}",
        "model_id": model_id,
        "architecture": export.read(CONFIG_NAME).get("architecture"),
        "source": _images(pixels["source"]),
        "target": _images(pixels["target"]),
        "source_file": source_file,
        "call": call if _is_picture(pixels["target"]) else f'generated = pipe("{source_file}")  # an array',
        "size": "{}x{}".format(*pixels["image_size"]),
        "resize": pixels["resize"],
        "has_samples": (export.folder / SAMPLES_NAME).is_file(),
        "has_discriminator": export.has_discriminator,
        "dataset": dataset,
        "dataset_link": f"[{name}](https://huggingface.co/datasets/{name})" if commit else f"`{name}`",
        "dataset_version": f"revision `{commit}`" if commit else f"fingerprint `{dataset.get('fingerprint')}`",
        "metrics": [
            {"name": title, "text": format(metrics[key]["value"], style)}
            for key, (title, style) in METRICS.items()
            if key in metrics
        ],
        "validation_pairs": metrics.get("pairs"),
        "epoch": metrics.get("epoch"),
        "step": metrics.get("step"),
        "command": run.get("command"),
        "options": run.get("options", {}),
        "started_from": _started_from(run),
        "hardware": run.get("hardware") or f"{run.get('processes')} x {run.get('device')}",
        "mixed_precision": run.get("mixed_precision"),
        "time": _duration(metrics.get("seconds")),
        "parameters": ", ".join(f"{network} {count:,}" for network, count in parameters.items()),
        "versions": ", ".join(f"{package} {number}" for package, number in versions.items()),
    }


def _started_from(run: dict[str, Any]) -> str | None:
    """The published model that training began with, without its revision."""
    options = run.get("options", {})
    name = options.get("init_from") or options.get("resume_from_hub")  # an option of earlier versions
    return name.split("@")[0] if name else None


def _is_repo_id(model_id: str) -> bool:
    return re.fullmatch(r"[\w.-]+/[\w.-]+", model_id) is not None and not Path(model_id).exists()


def _images(side: dict[str, Any]) -> str:
    """ "8-bit RGB images", "label maps of 12 classes", "float 13-channel images"."""
    mode, channels = side.get("mode", "rgb"), side.get("channels", 3)
    if mode == "labels":
        return f"label maps of {channels} classes"
    kind = {"channels": f"{channels}-channel", "gray": "gray"}.get(mode, mode.upper())
    return f"{'float' if side.get('dtype') == 'float32' else str(side.get('bit_depth', 8)) + '-bit'} {kind} images"


def _is_picture(side: dict[str, Any]) -> bool:
    """Whether Pillow has a mode for such pixels."""
    dtypes = {"gray": ("uint8", "uint16"), "channels": ()}.get(side.get("mode", "rgb"), ("uint8",))
    return side.get("dtype", "uint8") in dtypes


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
