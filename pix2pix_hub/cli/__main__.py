"""`python -m pix2pix_hub.cli COMMAND …`, as `accelerate launch -m` needs it."""

import sys

from pix2pix_hub.cli import main

if __name__ == "__main__":
    sys.exit(main())
