"""Run under `accelerate launch`: what a process's training loader yields in two epochs.

    loader_worker.py FOLDER OPTIONS… [unknown]

writes FOLDER/<processes>_<rank>.json: for each epoch, for each batch, the indices of its pairs.
With "unknown" the lengths of the shards of a streamed set are not counted.
"""

import json
import sys
from pathlib import Path

from pix2pix_hub.cli import parse_training_config
from pix2pix_hub.config import PairOptions, TrainingConfig
from pix2pix_hub.data.stream_source import StreamedPairs, open_stream
from pix2pix_hub.devices import relaunch_on_cpus
from pix2pix_hub.training.trainer import Pix2PixTrainer


def pairs_of_unknown_number(config: TrainingConfig) -> StreamedPairs:
    shards = len(list(Path(config.dataset).glob("train*")))
    options = PairOptions(config.dataset, image_size=config.image_size, max_validation_pairs=3)
    return open_stream(options, lengths={"train": [None] * shards})


def main(folder: Path, options: list[str]) -> None:
    unknown = options[-1] == "unknown"
    config = parse_training_config([*options[: -1 if unknown else None], "--output-dir", str(folder / "run")])
    trainer = Pix2PixTrainer(config, pairs_of_unknown_number(config) if unknown else None)
    epochs = []
    for epoch in range(2):
        epochs.append([batch["index"].tolist() for batch in trainer.train_loader.rest_of_epoch(epoch, taken=0)])
        assert unknown or len(epochs[-1]) == trainer.train_loader.batches_per_epoch
    accelerator = trainer.accelerator
    path = folder / f"{accelerator.num_processes}_{accelerator.process_index}.json"
    path.write_text(json.dumps(epochs))
    accelerator.end_training()


if __name__ == "__main__":
    relaunch_on_cpus()
    main(Path(sys.argv[1]), sys.argv[2:])
