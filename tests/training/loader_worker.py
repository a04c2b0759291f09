"""Run under `accelerate launch`: what a process's training loader yields in two epochs.

    loader_worker.py FOLDER OPTIONS…

writes FOLDER/<processes>_<rank>.json: for each epoch, for each batch, the indices of its pairs.
"""

import json
import sys
from pathlib import Path

from pix2pix_hub.cli import parse_training_config
from pix2pix_hub.devices import relaunch_on_cpus
from pix2pix_hub.training.trainer import Pix2PixTrainer


def main(folder: Path, options: list[str]) -> None:
    trainer = Pix2PixTrainer(parse_training_config([*options, "--output-dir", str(folder / "run")]))
    epochs = []
    for epoch in range(2):
        epochs.append([batch["index"].tolist() for batch in trainer.train_loader.rest_of_epoch(epoch, taken=0)])
        assert len(epochs[-1]) == len(trainer.train_loader)
    accelerator = trainer.accelerator
    path = folder / f"{accelerator.num_processes}_{accelerator.process_index}.json"
    path.write_text(json.dumps(epochs))
    accelerator.end_training()


if __name__ == "__main__":
    relaunch_on_cpus()
    main(Path(sys.argv[1]), sys.argv[2:])
