"""`python app.py` as a process of its own, watched: its log, its memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

import httpx
import psutil
from launching import ROOT, free_port

MAX_GROWTH = 1.5e9  # bytes of memory above that of the app when it has answered for the first time


@dataclass
class WatchedApp:
    """The running app."""

    url: str
    process: psutil.Process
    log: Path
    peak: float = 0.0  # bytes of memory, the most that was seen
    start: float = 0.0  # the same at first
    _read: int = field(default=0, repr=False)

    def complaints(self) -> list[str]:
        """The last lines of tracebacks in what the log got since the last call; that it grew too large or died."""
        found = [] if self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE else ["died"]
        if self.start and self.peak - self.start > MAX_GROWTH:
            found.append(f"memory {self.peak / 1e9:.1f} GB, {self.start / 1e9:.1f} at first")
            self.peak = 0.0
        text = self.log.read_text(errors="replace")
        new, self._read = text[self._read :], len(text)
        if "Traceback" in new:
            found.append("traceback: " + new.strip().splitlines()[-1][:80])
            sys.stderr.write(new[-3000:])
        return found

    def watch(self) -> None:
        """Look at its memory until it ends."""
        while self.process.is_running():
            try:
                self.peak = max(self.peak, self.process.memory_info().rss)
            except psutil.NoSuchProcess:
                return
            time.sleep(0.02)


@contextmanager
def running_app(folder: Path, **limits: int) -> Iterator[WatchedApp]:
    """Start it on a free port, wait for its page, end it."""
    port = free_port()
    log = folder / "app.log"
    variables = {f"PIX2PIX_{name.upper()}": str(value) for name, value in limits.items()}
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "app.py"), "--host", "127.0.0.1", "--port", str(port)],
            cwd=folder,
            env=os.environ
            | {"PYTHONPATH": str(ROOT), "PIX2PIX_MODEL": "", "GRADIO_ANALYTICS_ENABLED": "False"}
            | variables,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    app = WatchedApp(f"http://127.0.0.1:{port}/", psutil.Process(process.pid), log)
    try:
        while True:
            try:
                httpx.get(app.url)
                break
            except httpx.TransportError:
                assert process.poll() is None, log.read_text()
                time.sleep(0.1)
        Thread(target=app.watch, daemon=True).start()
        yield app
    finally:
        process.terminate()
        process.wait(60)
