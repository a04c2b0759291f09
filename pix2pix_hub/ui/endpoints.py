"""The endpoints for programs: `/translate`, `/draw`, `/compare`, `/batch`. Also the tools of the MCP server.

Their functions' signatures and docstrings are the documentation that Gradio shows under "Use via API".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from pix2pix_hub.ui.guard import computing, picture_files, picture_input
from pix2pix_hub.ui.handlers import Handlers, safe_stem


def add_endpoints(handlers: Handlers) -> None:
    """Declare them on the page that is being built; nothing of them is seen there."""

    def translate(
        image: Path, model: str | None = None, stochastic: bool = False, seed: int = 0, make_source: bool = False
    ) -> str:
        """Translate one picture of any size with a pix2pix model.

        Args:
            image: PNG, JPEG, WebP, BMP or TIFF of 8 or 16 bits.
            model: one of the models offered here; none: the first.
            stochastic: leave dropout on, as the paper did: each seed gives another variant, the same seed the same.
            seed: of the variant, from 0. Without `stochastic` it changes nothing.
            make_source: the picture is a photo: make a source of it first, as was done to train the model. For models
                trained on such sources only.

        Returns:
            The translation in the size and depth of the picture, or of the source that was made of it.
        """
        options: dict[str, Any] = {"stochastic": stochastic, "seed": seed, "make_source": make_source}
        return str(handlers.translate(image, model, **options)[0])

    def draw(drawing: Path, model: str | None = None) -> str:
        """Translate a drawing: it is brought to the size the model was trained at, and to the model's own colours.

        Args:
            drawing: a picture in the colours of the model's classes, or black lines on white, as the model has it.
            model: one of the models offered here; none: the first.

        Returns:
            The translation, in the size the model was trained at.
        """
        return str(handlers.save(handlers.draw(drawing, model), safe_stem(drawing.name)))

    def compare(source: Path, target: Path, model: str | None = None) -> tuple[Any, Any, dict[str, float]]:
        """Translate a source and measure the result against the true target.

        Args:
            source: the picture to translate.
            target: the true picture of the same size.
            model: one of the models offered here; none: the first.

        Returns:
            The translation, at most 1024 pixels a side.
            The same with the discriminator's judgement laid over it: blue looks real, orange looks generated.
            l1 in [0, 1], psnr in dB, ssim; realism of the translation and of the target in [0, 1].
        """
        _, generated, _, heat, metrics = handlers.compare(source, target, model)
        return generated, heat, metrics

    def batch(images: list[Path], model: str | None = None) -> tuple[str | None, list[dict[str, str]]]:
        """Translate many pictures; those that cannot be translated are listed and do not stop the rest.

        Args:
            images: PNG, JPEG, WebP, BMP or TIFF files.
            model: one of the models offered here; none: the first.

        Returns:
            A zip of the translations; none where every file failed.
            For each file its name and what became of it.
        """
        archive, _, outcomes = handlers.batch(images, model)
        return str(archive) if archive else None, [{"file": name, "outcome": outcome} for name, outcome in outcomes]

    with gr.Group(visible=False):
        model = gr.Textbox(label="model", value=None)
        image, second = picture_input(label="image"), picture_input(label="target")
        images = picture_files(label="images")
        stochastic, seed = gr.Checkbox(label="stochastic"), gr.Number(value=0, label="seed", precision=0)
        make_source = gr.Checkbox(label="make_source")
        result, overlay = gr.Image(label="translation", format="png"), gr.Image(label="realism", format="png")
        archive, details = gr.File(label="zip"), gr.JSON(label="details")
        for function, inputs, outputs in (
            (translate, [image, model, stochastic, seed, make_source], [result]),
            (draw, [image, model], [result]),
            (compare, [image, second, model], [result, overlay, details]),
            (batch, [images, model], [archive, details]),
        ):
            gr.Button().click(computing(function), inputs, outputs, api_name=function.__name__)
