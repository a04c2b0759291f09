"""From models to a folder of static files in which they run: nothing to install, no server, no picture sent anywhere.

index.html page.js style.css worker.js     the page, with the drawing board of the app; what computes for it
service_worker.js                          keeps what was loaded, and sets the headers that threads need
site.json                                  the models, and where ONNX Runtime Web comes from
models/NAME/                               model.onnx, model.json, and examples with the pipeline's results
runtime/                                   ONNX Runtime Web, with `vendor`; else a public network of servers has it
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from PIL import Image

from pix2pix_hub.convert.onnx import check_packages, shrink_weights, write_onnx
from pix2pix_hub.export import GENERATOR_FILES, TRAINING_CONFIG_NAME, Export
from pix2pix_hub.hub.push import SITE_NAME
from pix2pix_hub.image.format import PixelFormat, distinct_colors
from pix2pix_hub.image.read import Decoded
from pix2pix_hub.inference.pipeline import Pix2PixPipeline, prepare
from pix2pix_hub.metrics import METRICS
from pix2pix_hub.models.fetch import fetch_files, split_revision
from pix2pix_hub.ui.handlers import as_stored
from pix2pix_hub.ui.models import SHOWN_FILES, Location, ModelInfo, board_setup, free_name, hex_color
from pix2pix_hub.util import UserError, read_object, write_folder_aside

Precision = Literal["auto", "float32", "float16", "int8"]
LEAST_PSNR = 40.0  # dB, of what stored weights of fewer bits give, against the model
MOST_EXAMPLES = 4
METRICS_SHOWN = ("l1", "psnr", "ssim")
MADE_BY = "pix2pix-hub web"
STATIC, BOARD = Path(__file__).with_name("static"), Path(__file__).parents[1] / "ui" / "canvas"
BROWSER_MODES, BROWSER_DTYPES = ("gray", "rgb", "labels"), ("uint8", "uint16")

RUNTIME_VERSION = "1.30.0"  # of the npm package onnxruntime-web
CDN = f"https://cdn.jsdelivr.net/npm/onnxruntime-web@{RUNTIME_VERSION}/dist/"
RUNTIME = {  # files of its dist/ → SHA-384, which the page checks wherever they come from
    "ort.wasm.min.mjs": "sha384-SfFfy/pvthiOsgaw3KX0bV5TfQ6Iq+oY9KutMe4SxIuHH4cl+DCSD4rTsYOoG1tJ",
    "ort-wasm-simd-threaded.mjs": "sha384-XcXA/MtAf0WpB8e023xQH9CM7RIjiugakT7x99DIwpFf7k56BIFFcAPerIF7FDad",
    "ort-wasm-simd-threaded.wasm": "sha384-vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM",
    "ort.webgpu.min.mjs": "sha384-FPQBMbud8ICuP0Ii+Gr95KWEX9pKHtUC3lacIp0aPI8WYluKvTsEGQ3AE2Ze3QlL",
    "ort-wasm-simd-threaded.asyncify.mjs": "sha384-qViEcCGzsR/m8nlQwIsbYh7afN4thuraqFYDQY6huvmoLVoZq/eYawQ1wrv8nnhA",
    "ort-wasm-simd-threaded.asyncify.wasm": "sha384-EPVDLTxuO663dkZO/pcKJF6vOyyfq/5z9FY1oksN0UWFX2ABH4wDDZQHeNoUleWR",
}


class Written(NamedTuple):
    """A model of a site."""

    name: str
    precision: str  # of its stored weights
    size: int  # of model.onnx, in bytes
    psnr: float  # in dB, of the file against the model, the lowest over the examples


def write_site(
    models: Mapping[str, Location], output: Path, *, precision: Precision = "auto", vendor: Path | None = None
) -> list[Written]:
    """Write a site of one or several models, whole or not at all.

    Args:
        models: name → export or Hub id, as `choose_models` gives them; the first is shown first.
        output: the folder; a site that this wrote earlier is replaced.
        precision: of stored weights; "auto": the smallest that stays within 40 dB of the model.
        vendor: the unpacked npm package `onnxruntime-web`, which is copied; None: the page loads it from a public
            network of servers.

    Raises:
        UserError: a package is missing; `output` holds something else; `vendor` is no such package, or of another
            version; a model that is not there, takes or makes other than pictures and labels, or is not within 40 dB
            at the precision asked for.
    """
    check_packages(MADE_BY)
    _check_output(output)
    runtime = {} if vendor is None else _runtime_files(vendor)
    infos = [(*_read_model(name, location), location) for name, location in models.items()]
    with write_folder_aside(output) as partial:
        written: list[Written] = []
        slugs: list[str] = []
        for info, pipe, location in infos:
            slug = free_name(re.sub(r"[^A-Za-z0-9_-]+", "-", info.name).strip("-") or "model", slugs, "{}-{}")
            slugs.append(slug)
            written.append(_write_model(info, pipe, location, partial / "models" / slug, precision))
        for name, source in runtime.items():
            (partial / "runtime").mkdir(exist_ok=True)
            shutil.copyfile(source, partial / "runtime" / name)
        named = [{"name": info.name, "folder": slug} for slug, (info, *_) in zip(slugs, infos, strict=True)]
        base = CDN if vendor is None else "runtime/"
        site = {"made_by": MADE_BY, "models": named, "runtime": {"base": base, "integrity": RUNTIME}}
        _write_page(partial, site)
    return written


def _check_output(output: Path) -> None:
    """Raise `UserError` where the folder holds anything but a site."""
    if not os.path.lexists(output):
        return
    files = {path.relative_to(output).as_posix() for path in output.rglob("*") if not path.is_dir()}
    made = read_object(output / SITE_NAME) if SITE_NAME in files else {}
    if not output.is_dir() or (others := sorted(files - {*made.get("files", ())} - {SITE_NAME})):
        found = f"holds {', '.join(others[:3])}" if output.is_dir() else "is a file"
        raise UserError(f"--output {output} {found}, which `{MADE_BY}` did not write: name another folder.")


def _runtime_files(vendor: Path) -> dict[str, Path]:
    """Name → path of the files of ONNX Runtime Web in its npm package, checked."""
    files = {name: vendor / "dist" / name for name in RUNTIME}
    if wrong := [name for name, path in files.items() if not path.is_file() or integrity(path) != RUNTIME[name]]:
        found = read_object(vendor / "package.json")
        what = f"{found.get('name')} {found.get('version')}" if found else "no package"
        raise UserError(
            f"--vendor {vendor} is {what}, whose dist/{wrong[0]} is not that of onnxruntime-web {RUNTIME_VERSION}: "
            f"type `npm pack onnxruntime-web@{RUNTIME_VERSION}`, unpack the file, and name its folder package."
        )
    return files


def integrity(path: Path) -> str:
    """A file's hash as browsers check it."""
    return "sha384-" + base64.b64encode(hashlib.sha384(path.read_bytes()).digest()).decode()


def _read_model(name: str, location: Location) -> tuple[ModelInfo, Pix2PixPipeline]:
    folder = fetch_files(location, tuple(dict.fromkeys((*GENERATOR_FILES, *SHOWN_FILES, TRAINING_CONFIG_NAME))))
    info = ModelInfo(folder, name)
    for verb, side in (("takes", info.source), ("makes", info.target)):
        if side.mode not in BROWSER_MODES or side.dtype not in BROWSER_DTYPES:
            raise UserError(
                f"{name} {verb} {side.describe()}; a browser has gray and RGB pictures, and labels: show it with "
                "`python app.py --model`."
            )
    return info, Pix2PixPipeline.from_pretrained(folder, device="cpu", dtype="float32")


def _write_model(
    info: ModelInfo, pipe: Pix2PixPipeline, location: Location, folder: Path, precision: Precision
) -> Written:
    folder.mkdir(parents=True)
    file, generator = folder / "model.onnx", pipe.generator
    size = info.width, info.height
    sources = [as_stored(example.source, info.source, size) for example in info.examples[:MOST_EXAMPLES]]
    for number, source in enumerate(sources, 1):
        _shown(source).save(folder / f"example_{number}.png", optimize=True)
        _shown(pipe(source, output_type="decoded")).save(folder / f"result_{number}.png", optimize=True)
    write_onnx(generator, file)
    chosen, psnr = "float32", _lowest_psnr(file, pipe, sources)
    for candidate in ("int8", "float16") if precision == "auto" else {precision} - {"float32"}:
        shrink_weights(file, candidate, smaller := folder / "smaller.onnx")
        if (found := _lowest_psnr(smaller, pipe, sources)) >= LEAST_PSNR:  # so NaN, of overflow, is not
            smaller.replace(file)
            chosen, psnr = candidate, found
            break
        smaller.unlink()
        if precision != "auto":
            raise UserError(
                f"--precision {precision}: what {info.name} gives is {found:.0f} dB from the model, where "
                f"{LEAST_PSNR:.0f} dB is the least: leave it out."
            )
    run, pixels = Export(pipe.folder).run, pipe.preprocessor
    numbers = {METRICS[name].title: f"{info.numbers[name]:.4g}" for name in METRICS_SHOWN if name in info.numbers}
    facts = {
        "Model": info.summary(),
        "Trained on": str(run.get("dataset", {}).get("pairs", "")),
        "Parameters": f"{sum(values.numel() for values in generator.parameters()):,}",
        **{f"{title} on validation pairs": value for title, value in numbers.items()},
    }
    content = {
        "name": info.name,
        "link": f"https://huggingface.co/{split_revision(location)[0]}" if isinstance(location, str) else None,
        "facts": {label: fact for label, fact in facts.items() if fact},
        "precision": chosen,
        "bytes": file.stat().st_size,
        "digest": hashlib.sha256(file.read_bytes()).hexdigest(),
        "size_multiple": generator.size_multiple,
        "minimum_size": generator.minimum_size,
        "source": _side(pixels.source),
        "target": _side(pixels.target),
        "board": board_setup(info),
        "maker": None if pixels.maker is None else pixels.maker.to_dict(),
        "examples": len(sources),
    }
    (folder / "model.json").write_text(json.dumps(content, indent=1) + "\n")
    return Written(info.name, chosen, file.stat().st_size, psnr)


def _side(side: PixelFormat) -> dict[str, Any]:
    colors = list(map(hex_color, side.colors or distinct_colors(side.channels))) if side.mode == "labels" else []
    return {"mode": side.mode, "channels": side.channels, "colors": colors}


def _shown(image: Decoded) -> Image.Image:
    """As the page has it: RGB of 8 bits."""
    return image.eight_bit()


def _lowest_psnr(file: Path, pipe: Pix2PixPipeline, sources: list[Decoded]) -> float:
    """PSNR in dB of what an ONNX file gives against the model; of noise, where there are no examples."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    generator, form = pipe.generator, pipe.preprocessor.source
    height, width = pipe.preprocessor.image_size
    images: list[Any] = list(sources)
    if not images:
        images = [torch.rand(form.channels, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1]
    found = []
    for image in images:
        batch = prepare(image, form, "the example").padded(generator.size_multiple, generator.minimum_size).piece()
        made = session.run(None, {"source": batch[None].numpy()})[0]
        with torch.inference_mode():
            error = float(np.square(made - generator(batch[None]).numpy()).mean())
        found.append(10.0 * math.log10(4.0 / error) if error > 0 else math.inf if error == 0 else math.nan)
    return min(found)


def _write_page(folder: Path, site: dict[str, Any]) -> None:
    """Put the page, its board and `site.json` beside the models."""
    page, board = (
        {suffix: (place / f"{name}.{suffix}").read_text() for suffix in ("html", "css", "js")}
        for place, name in ((STATIC, "page"), (BOARD, "canvas"))
    )
    texts = {
        "index.html": page["html"].replace("<!-- board -->", board["html"]),
        "style.css": f"{page['css']}\n#board {{\n{board['css']}}}\n",
        "page.js": f"function drawingBoard(element, props, watch) {{\n{board['js']}}}\n\n{page['js']}",
        "worker.js": (STATIC / "worker.js").read_text(),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digest = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)).hexdigest()
    service = (STATIC / "service_worker.js").read_text().replace("VERSION", digest[:16])
    (folder / "service_worker.js").write_text(service)
    names = [path.relative_to(folder).as_posix() for path in files]
    (folder / SITE_NAME).write_text(json.dumps(site | {"files": [*names, "service_worker.js"]}, indent=1) + "\n")
