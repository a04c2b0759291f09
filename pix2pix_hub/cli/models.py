"""`pix2pix-hub convert`, `export`, `push` and `space push`: models from elsewhere, for elsewhere, on the Hub."""

from __future__ import annotations

import filecmp
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from pix2pix_hub.cli.options import Model
from pix2pix_hub.util import UserError, say

Repository = Annotated[str, Positional, arg(metavar="USER/NAME")]


def convert(
    file: Annotated[Path, Positional, arg(metavar="CHECKPOINT")],
    output: Path,
    norm_statistics: Literal["image", "running"] = "image",
    nearest: bool = False,
) -> None:
    """Make an export of a generator that pytorch-CycleGAN-and-pix2pix trained.

    Args:
        file: Checkpoint, for example latest_net_G.pth; nothing in it is run.
        output: Folder to write the export to.
        norm_statistics: What batch norm uses at inference: each image's own, as that project tests, or training's.
        nearest: The network enlarges with nn.Upsample in mode nearest and a convolution (the file does not say).
    """
    from pix2pix_hub.convert.checkpoint import PROJECT, convert_checkpoint

    layout, network = convert_checkpoint(file, output, norm_statistics=norm_statistics, nearest=nearest)
    say(f"{file} is {layout.architecture} of {PROJECT}, norm {layout.norm}.")
    say(f"{type(network).__name__} written to {output}. Use it:")
    say(f"  pix2pix-hub translate {output} IMAGES --output DIR")


def export(
    model: Model,
    format: Literal["onnx"],
    output: Path | None = None,
    revision: str | None = None,
) -> None:
    """Write a model's generator for another runtime, for images of any size, and compare it with the model.

    Args:
        format: ONNX.
        output: File to write; None: the model's name with the suffix of the format, in the current folder.
        revision: Branch, tag or commit of a Hub model.
    """
    from pix2pix_hub.convert.onnx import check_packages, write_onnx
    from pix2pix_hub.export import export_of
    from pix2pix_hub.models import load_generator

    path = output or Path(f"{Path(model).name}.{format}")
    if path.exists():
        raise UserError(f"--output {path} exists and is never overwritten: name another file.")
    if not path.parent.is_dir():
        raise UserError(f"--output {path}: there is no folder {path.parent}. Make it, or name another.")
    check_packages()
    generator = load_generator(export_of(model), revision=revision)
    difference = write_onnx(generator, path)
    say(f"{path} gives what the model gives (largest difference {difference:.1e}, at two sizes).")
    say(
        f"source: float32 (N, {generator.in_channels}, H, W) in [-1, 1], H and W multiples of "
        f"{generator.size_multiple} from {generator.minimum_size}; generated: (N, {generator.out_channels}, H, W)."
    )


def web(
    models: Annotated[tuple[str, ...], Positional, arg(metavar="MODEL ...")] = (),
    *,
    output: Path,
    precision: Literal["auto", "float32", "float16", "int8"] = "auto",
    vendor: Path | None = None,
) -> None:
    """Write a folder of static files in which models run in the browser: draw, open pictures, no server.

    Args:
        models: Exports, run folders, or Hub ids (user/name, user/name@revision); none: those that the app shows.
        output: Folder to write; a site that this command wrote is replaced, anything else never.
        precision: How weights are stored (computing is in float32); auto: the smallest within 40 dB of the model.
        vendor: Unpacked npm package onnxruntime-web, which is copied; None: the page loads it from cdn.jsdelivr.net.
    """
    from pix2pix_hub.ui.models import choose_models
    from pix2pix_hub.web.site import write_site

    for made in write_site(choose_models(",".join(models)), output, precision=precision, vendor=vendor):
        say(f"{made.name}: {made.size / 1e6:.1f} MB of {made.precision} weights, {made.psnr:.0f} dB from the model.")
    say(f"{output} is written. Look at it (`python -m http.server --directory {output}`), then put it on any host.")


def push(
    run_or_export: Annotated[Path, Positional, arg(metavar="RUN_OR_EXPORT")],
    repo_id: Repository,
    private: bool = False,
    revision: str | None = None,
    best: bool = False,
    license: str | None = None,
    message: str | None = None,
) -> None:
    """Publish a trained model on the Hugging Face Hub, as one commit.

    Args:
        run_or_export: Run folder (its `model/` is pushed), or an export.
        repo_id: Model repository, user/name; made where it does not exist.
        private: Make the repository private.
        revision: Branch to push to, made where it does not exist; None: the main one.
        best: Push the run's `model_best/` instead of its `model/`.
        license: Licence of the weights, as the Hub spells it; None: what the card says already, else apache-2.0.
        message: Title of the commit; None: epoch and step of the run.
    """
    from pix2pix_hub.export import MODEL, WEIGHTS_NAME
    from pix2pix_hub.hub.push import find_export, push_export

    folder = find_export(run_or_export, best=best)
    last = run_or_export / MODEL / WEIGHTS_NAME
    if best and last.is_file() and filecmp.cmp(folder / WEIGHTS_NAME, last, shallow=False):
        say("model_best/ and model/ hold the same weights: the best epoch is the last one.")
    url = push_export(folder, repo_id, private=private, revision=revision, license=license, message=message)
    say(f"pushed {folder}: {url}")


def space_push(
    repo_id: Repository,
    model: str,
    sdk: Literal["gradio", "static"] = "gradio",
    hardware: str | None = None,
    private: bool = False,
) -> None:
    """Make or update a Hugging Face Space that shows a published model, as one commit.

    Args:
        repo_id: Space, user/name; made where it does not exist.
        model: Hub id of the model, user/name or user/name@revision; several with commas between them give a picker.
        sdk: The app on a server of the Hub, or the page of `web`, which runs in the visitor's browser.
        hardware: What it runs on, as the Hub calls it (cpu-basic, t4-small, zero-a10g, …); None: what it has.
        private: Make the Space private.
    """
    from pix2pix_hub.hub.space import push_space

    models = [name.strip() for name in model.split(",") if name.strip()]
    if not models:
        raise UserError("--model names no model: give the Hub id of one, user/name.")
    if sdk == "static" and hardware is not None:
        raise UserError("--hardware is for --sdk gradio: a static Space runs in the visitor's browser. Leave it out.")

    def write(folder: Path) -> None:
        from pix2pix_hub.web.site import write_site

        write_site({name: name for name in models}, folder)

    site = write if sdk == "static" else None
    say(f"pushed {repo_id}: {push_space(repo_id, models, write_site=site, hardware=hardware, private=private)}")
