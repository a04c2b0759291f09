"""The card of a converted model."""

from __future__ import annotations

from huggingface_hub import ModelCardData

from pix2pix_hub.convert.layouts import Layout
from pix2pix_hub.models.auto import Generator

STATISTICS = {
    ("batch", "image"): (
        "batch norm with the statistics of each image, as that project tests (it leaves batch norm in training mode, "
        "one image a batch). `pix2pix-hub convert --norm-statistics running` uses the averages of training instead."
    ),
    ("batch", "running"): (
        "batch norm with the averages of training (`--norm-statistics running`). That project itself tests with the "
        "statistics of each image unless it is told `--eval`."
    ),
    ("instance", "image"): "instance norm: the statistics of each image.",
    ("none", "image"): "none.",
}


def make_card(layout: Layout, network: Generator, file_name: str, name: str) -> str:
    """Text of README.md: where the weights come from, what was inferred, how they are used.

    Args:
        layout: what the checkpoint turned out to be.
        network: what was made of it.
        file_name: the checkpoint's name, without its folders.
        name: title, and what stands for the model in the example.
    """
    data = ModelCardData(
        library_name="pix2pix-hub", pipeline_tag="image-to-image", tags=["pix2pix", "image-to-image", "converted"]
    )
    parameters = sum(parameter.numel() for parameter in network.parameters())
    statistics = str(network.config["norm_statistics"])
    dropout = (
        f"off; `stochastic=True` turns it on. {layout.dropout_note}"
        if network.config["dropout"]
        else "none: the same image always gives the same result."
    )
    inferred = (
        f"Architecture: `{layout.architecture}` of {layout.project}, here `{type(network).__name__}` "
        f"({parameters:,} parameters).",
        f"Normalisation: {STATISTICS[layout.norm, statistics]}",
        f"Dropout: {dropout}",
        f"Images: 8 bits a channel; usually trained at {layout.image_size}x{layout.image_size}. Other sizes work; the "
        "further from this one, the worse.",
    )
    return f"""---
{data.to_yaml()}
---

# {name}

Image-to-image translation: {network.in_channels} channels in, {network.out_channels} out. Converted by
`pix2pix-hub convert` from `{file_name}`, a checkpoint of {layout.project}.

## How to use

With the `pix2pix_hub` package installed, and `{name}` this folder or where it was pushed to:

```python
from pix2pix_hub import Pix2PixPipeline

pipe = Pix2PixPipeline.from_pretrained("{name}")
result = pipe("source.png")
```

## What was inferred

{"".join(f"- {line}{chr(10)}" for line in inferred)}
The file says nothing about what it was trained on, nor under which licence its weights are: whoever trained it knows.

## Citation

```bibtex
@inproceedings{{isola2017image,
  title={{Image-to-Image Translation with Conditional Adversarial Networks}},
  author={{Isola, Phillip and Zhu, Jun-Yan and Zhou, Tinghui and Efros, Alexei A}},
  booktitle={{CVPR}}, year={{2017}}}}
```
"""
