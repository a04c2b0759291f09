"""How long `python app.py` takes to show its page, and to translate.

python benchmarks/app_start.py [--repeats 3]

Against a page of an empty `gr.Blocks()`. Prints the median of each, in seconds: until the page is served, the first
translation (asked for as soon as the page is there, by a client that is imported already), and those after it.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parents[1]))  # a checkout needs no installation

from pix2pix_hub.synthetic import render_pair

ROOT = Path(__file__).parents[1]
EMPTY = "import gradio as gr\nwith gr.Blocks(analytics_enabled=False) as demo: pass\ndemo.launch(quiet=True)"
LATER = 5  # translations after the first


def free_port() -> int:
    """One that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(command: list[str], folder: str) -> tuple[subprocess.Popen[bytes], str, float]:
    """A server that works in `folder`: process, address, and the seconds until it served its page."""
    port = free_port()
    variables = {"GRADIO_SERVER_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False", "PYTHONPATH": str(ROOT)}
    url, began = f"http://127.0.0.1:{port}/", time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, env=os.environ | variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while True:
        try:
            if httpx.get(url, timeout=60).status_code == 200:
                return process, url, time.perf_counter() - began
        except httpx.TransportError:
            time.sleep(0.01)


def translate(url: str, picture: bytes) -> float:
    """Seconds from asking to having the answer."""
    began = time.perf_counter()
    path = httpx.post(f"{url}gradio_api/upload", files={"files": ("a.png", picture)}, timeout=60).json()[0]
    message = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}, None, False, 0, False]}
    event = httpx.post(f"{url}gradio_api/call/translate", json=message, timeout=60).json()["event_id"]
    answer = httpx.get(f"{url}gradio_api/call/translate/{event}", timeout=60).text
    assert answer.startswith("event: complete"), answer
    return time.perf_counter() - began


def main() -> None:
    """Measure in turns, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        render_pair(0, (256, 256))[0].save(file.name)
        picture = Path(file.name).read_bytes()
    empty, page, first, later = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:  # without runs/: the model that is shipped
        for _ in range(repeats):
            process, _, seconds = start([sys.executable, "-c", EMPTY], folder)
            process.kill()
            process.wait()
            empty.append(seconds)
            process, url, seconds = start([sys.executable, str(ROOT / "app.py")], folder)
            page.append(seconds)
            first.append(translate(url, picture))
            later += [translate(url, picture) for _ in range(LATER)]
            process.terminate()
            process.wait()
    rows = {"empty gr.Blocks(), page": empty, "app.py, page": page, "first translation": first, "later ones": later}
    for name, values in rows.items():
        say(f"{name:24} {statistics.median(values):6.2f} s   ({min(values):.2f} to {max(values):.2f})")
    say(f"{'page, later by':24} {statistics.median(page) - statistics.median(empty):6.2f} s")


def say(text: str) -> None:
    """A line of the answer."""
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
