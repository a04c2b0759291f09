"""`pix2pix-hub app`: show a pix2pix model in the browser; also what a Hugging Face Space runs.

python app.py                                          # the newest model under runs/, else the one shipped
python app.py --model user/pix2pix-maps,runs/facades   # several, with a picker
python app.py --help
"""

import sys

from pix2pix_hub.cli import main

if __name__ == "__main__":
    sys.exit(main(["app", *sys.argv[1:]]))
