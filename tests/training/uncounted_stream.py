"""train_accelerate.py where the rows of shards cannot be counted, as those of WebDataset on the Hub cannot."""

import sys

from pix2pix_hub.cli import train
from pix2pix_hub.data import stream_source

if __name__ == "__main__":
    stream_source._rows_in = lambda file, token=None: None
    sys.exit(train(sys.argv[1:]))
