"""`pix2pix-hub train`, to be launched: train pix2pix on pairs of images.

accelerate launch train_accelerate.py                                       # preset demo on the embedded set
accelerate launch train_accelerate.py --dataset path/to/pairs --direction BtoA
accelerate launch train_accelerate.py --resume                              # go on with the newest run
"""

import sys

from pix2pix_hub.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
