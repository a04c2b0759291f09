"""Run under `accelerate launch`: five training steps on this process's share of fixed batches of four.

    two_process_worker.py FOLDER NORM

writes FOLDER/<processes>_<rank>.pt: the weights after each step.
"""

import sys
from pathlib import Path

import torch
from accelerate.utils import set_seed

from pix2pix_hub.config import preset_config
from pix2pix_hub.devices import relaunch_on_cpus
from pix2pix_hub.training.image_buffer import ImageBuffer
from pix2pix_hub.training.setup import make_accelerator, make_loss, make_networks
from pix2pix_hub.training.step import GANStep

BATCH = 4
STEPS = 5


def main(folder: Path, norm: str) -> None:
    config = preset_config(
        "default", base_channels=4, image_size="32", dropout=0.0, buffer_size=0, norm=norm, mixed_precision="no"
    )
    accelerator = make_accelerator(config, folder)
    set_seed(0)
    networks = [network.double() for network in make_networks(config, 3, 3)]
    optimizers = [torch.optim.SGD(network.parameters(), 0.1) for network in networks]
    step = GANStep(accelerator, *accelerator.prepare(*networks, *optimizers), make_loss(config), ImageBuffer(0))
    share = BATCH // accelerator.num_processes
    mine = slice(accelerator.process_index * share, (accelerator.process_index + 1) * share)
    batches = torch.rand(STEPS, 2, BATCH, 3, 32, 32, dtype=torch.float64) * 2 - 1
    history = []
    for source, target in batches:
        step(source[mine], target[mine])
        history.append([{name: p.detach().clone() for name, p in network.named_parameters()} for network in networks])
    torch.save(history, folder / f"{accelerator.num_processes}_{accelerator.process_index}.pt")
    accelerator.end_training()


if __name__ == "__main__":
    relaunch_on_cpus()
    main(Path(sys.argv[1]), sys.argv[2])
