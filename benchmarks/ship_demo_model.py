"""Make the model that is part of the package from a run of README's first command.

python benchmarks/ship_demo_model.py runs/synthetic_demo_001

Weights are stored in half precision (half the size; pictures change by at most one of 255 levels). The card and the
training curves go with it.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).parents[1]))  # a checkout needs no installation

from pix2pix_hub.hub.card import write_card
from pix2pix_hub.util import write_folder_aside

SHIPPED = Path(__file__).parents[1] / "pix2pix_hub" / "assets" / "demo_model"
MAX_BYTES = 4_000_000  # of weights


def ship(run: Path) -> None:
    """Write `SHIPPED` from the run's export."""
    with write_folder_aside(SHIPPED) as folder:
        shutil.copytree(run / "model", folder, dirs_exist_ok=True)
        shutil.copyfile(run / "curves.png", folder / "curves.png")
        for path in folder.rglob("*.safetensors"):
            weights = {name: value.to(torch.float16) for name, value in load_file(path).items()}
            save_file(weights, path, metadata={"format": "pt"})
        write_card(folder, Path("pix2pix_hub/assets/demo_model"))
        size = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
        assert size <= MAX_BYTES, f"{size} bytes of weights"


if __name__ == "__main__":
    ship(Path(sys.argv[1]))
