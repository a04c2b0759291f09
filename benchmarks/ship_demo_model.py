"""Make the models that are part of the package from runs. Ours (18 minutes on one core with bf16 units,
37 on one without):

    accelerate launch train_accelerate.py --image-size 256 --base-channels 20 --num-downs 6 --epochs 15 \\
        --learning-rate 0.0016 --l1-weight 50 --perceptual-weight 300 --perceptual-network squeezenet --output-dir ship
    python benchmarks/ship_demo_model.py ship demo_model

    pix2pix-hub data make edges synthetic --output drawings
    accelerate launch train_accelerate.py --preset demo --dataset drawings --epochs 14 … --output-dir ship_drawing
    python benchmarks/ship_demo_model.py ship_drawing drawing_model

Weights are stored in half precision (half the size; pictures change by at most one of 255 levels), with the card.
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

ASSETS = Path(__file__).parents[1] / "pix2pix_hub" / "assets"
MAX_BYTES = 6_000_000  # of weights


def ship(run: Path, name: str) -> None:
    """Write the model of that name from the run's export."""
    with write_folder_aside(ASSETS / name) as folder:
        shutil.copytree(run / "model", folder, dirs_exist_ok=True)
        for path in folder.rglob("*.safetensors"):
            weights = {name: value.to(torch.float16) for name, value in load_file(path).items()}
            save_file(weights, path, metadata={"format": "pt"})
        write_card(folder, Path("pix2pix_hub/assets") / name)
        size = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
        assert size <= MAX_BYTES, f"{size} bytes of weights"


if __name__ == "__main__":
    ship(Path(sys.argv[1]), sys.argv[2])
