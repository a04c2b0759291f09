"""How long do `--help` and `import pix2pix_hub` take, in fresh processes that take turns?

    python benchmarks/start_up.py --json

Against a bare interpreter and `import torch`. "import_over_torch" is what `import pix2pix_hub` after `import torch`
adds to it, as a share; "modules" counts what each had imported. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "python": ["-c", "pass"],
    "import torch": ["-c", "import torch"],
    "import torch, pix2pix_hub": ["-c", "import torch, pix2pix_hub"],
    "import UNetGenerator": ["-c", "from pix2pix_hub import UNetGenerator"],
    "import Pix2PixPipeline": ["-c", "from pix2pix_hub import Pix2PixPipeline"],
    "import Pix2PixTrainer": ["-c", "from pix2pix_hub import Pix2PixTrainer"],
    "pix2pix-hub --help": ["-m", "pix2pix_hub.cli", "--help"],
    "pix2pix-hub translate --help": ["-m", "pix2pix_hub.cli", "translate", "--help"],
    "train_accelerate.py --help": ["train_accelerate.py", "--help"],
    "app.py --help": ["app.py", "--help"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true", help="last line: one JSON object")
    options = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(options.rounds + 1):
        for name, words in COMMANDS.items():
            found = run(words)
            if number:  # the first round reads files into the system's cache
                seconds[name].append(found)
    medians = {name: round(statistics.median(found), 3) for name, found in seconds.items()}
    share = medians["import torch, pix2pix_hub"] / medians["import torch"] - 1
    result = {"benchmark": "start_up", "import_over_torch": round(share, 3), "seconds": medians}
    sys.stdout.write("".join(f"| {name} | {found} s |\n" for name, found in medians.items()))
    sys.stdout.write((json.dumps(result) if options.json else f"import_over_torch {share:.1%}") + "\n")


def run(words: list[str]) -> float:
    """Seconds of one process, from start to end."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True, capture_output=True
    )
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
