"""40 clients of the app at once, first alone, then beside five attackers: each gets its own picture, and soon."""

from __future__ import annotations

import contextlib
import io
import json
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from threading import Event

import httpx
import numpy as np
from _app_process import running_app
from hostile_requests import ask, called, hostile_places, junk_request, secret_picture, upload
from PIL import Image

COUNT = 408  # 8 to begin with, then 40 clients × 5 pictures, twice
SIZES = [(32, 32), (64, 48), (128, 128), (200, 90), (31, 77), (300, 200)]
MAX_RATIO = 3.0  # of a client's waits beside attackers to those without them
PAUSE = 0.1  # seconds between the requests of an attacker


def cases(random: Random, folder: Path) -> Iterator[tuple[str, str]]:
    """Kinds: "alone", "attacked"."""
    from pix2pix_hub import Pix2PixPipeline
    from pix2pix_hub.ui.models import SHIPPED

    pipeline = Pix2PixPipeline.from_pretrained(SHIPPED)
    secret = secret_picture(folder)
    with running_app(folder) as app:
        with client_at(app.url, 0) as http:
            uploads = Path(upload(http, secret)["path"]).parents[1]
        places = hostile_places(secret, uploads)
        for clients, pictures in ((4, 1), *[(40, 5)] * 1000):
            sources = [[random_picture(random) for _ in range(pictures)] for _ in range(clients)]
            wanted = [[np.asarray(pipeline(source)) for source in each] for each in sources]
            waits = {}
            for kind in ("alone", "attacked"):
                stop = Event()
                with ThreadPoolExecutor(5) as attackers, ThreadPoolExecutor(clients) as pool:
                    for number in range(5 if kind == "attacked" else 0):
                        attackers.submit(attack, app.url, number, Random(random.random()), places, stop)
                    answers = list(pool.map(served, [app.url] * clients, range(clients), sources, wanted))
                    stop.set()
                waits[kind] = [sum(wait for _, wait in each) for each in answers]
                app.start = app.start or app.peak
                complaints = app.complaints()
                for number, each in enumerate(answers):
                    ratio = waits[kind][number] / waits["alone"][number]
                    for outcome, _ in each:
                        late = f"waited over {int(ratio)} times as long" if ratio > MAX_RATIO and pictures > 1 else None
                        yield kind, complaints.pop() if complaints else late or outcome


def client_at(url: str, number: int) -> httpx.Client:
    """A client with an address of its own."""
    address = f"127.0.{1 + number // 200}.{1 + number % 200}"
    return httpx.Client(base_url=url, timeout=300, transport=httpx.HTTPTransport(local_address=address))


def random_picture(random: Random) -> Image.Image:
    """One that no other client sends."""
    width, height = random.choice(SIZES)
    values = np.frombuffer(random.randbytes(3 * width * height), np.uint8)
    return Image.fromarray(values.reshape(height, width, 3))


def served(url: str, number: int, sources: list[Image.Image], wanted: list[np.ndarray]) -> list[tuple[str, float]]:
    """What became of a client's pictures, one after the other, and how many seconds each took."""
    outcomes = []
    with client_at(url, number) as http:
        for source, right in zip(sources, wanted, strict=True):
            start = time.monotonic()
            try:
                answer = called(http, "translate", [upload(http, source), None, False, 0, False])
                assert "event: complete" in answer, answer[:200]
                made = http.get(json.loads(answer.rsplit("data: ", 1)[1])[0]["url"]).content
                same = np.array_equal(np.asarray(Image.open(io.BytesIO(made))), right)
                outcome = "right" if same else "another picture"
            except (httpx.HTTPError, AssertionError, KeyError) as error:
                outcome = repr(error)[:200]
            outcomes.append((outcome, time.monotonic() - start))
    return outcomes


def attack(url: str, number: int, random: Random, places: list[str], stop: Event) -> None:
    """One attacker: abandons requests, sends junk, hostile paths, bombs and large pictures, cuts connections."""
    with client_at(url, 200 + number) as http:
        events = http.get("config").json()["dependencies"]
        (event,) = (each["id"] for each in events if each["api_name"] == "translate")
        large = upload(http, Image.effect_noise((2000, 2000), 60).convert("RGB"))
        bomb = upload(http, Image.new("L", (9000, 9000)))
        while not stop.wait(PAUSE):
            hostile, session = {"path": random.choice(places)}, secrets.token_hex(4)
            picture = random.choice([large, large, bomb, hostile])
            join = {"data": [picture, None, False, 0, False], "fn_index": event, "session_hash": session}
            with contextlib.suppress(httpx.HTTPError):
                match random.randrange(4):
                    case 0:  # nobody waits for the answer
                        http.post("gradio_api/queue/join", json=join)
                    case 1:  # somebody waits, for a moment
                        http.post("gradio_api/queue/join", json=join)
                        with http.stream("GET", "gradio_api/queue/data", params={"session_hash": session}) as stream:
                            next(stream.iter_lines(), None)
                    case 2:
                        ask(http, {**join, "data": [random.choice([bomb, hostile]), None, False, 0, False]})
                    case 3:
                        with http.stream(**junk_request(random)):
                            pass
