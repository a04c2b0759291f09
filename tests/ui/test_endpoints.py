"""The endpoints against the running app: what they answer, to how many, and what they refuse."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import itertools
import json
import select
import socket
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import gradio
import httpx
import numpy as np
import psutil
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from hostile_requests import META, ask, called, files_named, hostile_places, junk_request, secret_picture, upload
from numpy.typing import NDArray
from PIL import Image
from running_app import RunningApp

from pix2pix_hub.config import MakerOptions
from pix2pix_hub.image.maker import make_pair
from pix2pix_hub.image.read import Decoded, from_memory, read_image
from pix2pix_hub.image.write import encode
from pix2pix_hub.synthetic import render_pair
from pix2pix_hub.ui.guard import UNREADABLE, uploads_only
from pix2pix_hub.ui.store import Deadline
from pix2pix_hub.util import UserError

SECRET = "/etc/hostname"


@pytest.fixture(scope="module")
def client(app: RunningApp) -> Client:
    return Client(app.url, verbose=False)


def pipeline_answer(app: RunningApp, model: str, source: Any, **options: Any) -> Any:
    with app.store.use(model, Deadline(app.limits)) as pipeline:
        return pipeline(source, **options)


def random_picture(seed: int, size: tuple[int, int]) -> Image.Image:
    width, height = size
    values = np.random.default_rng(seed).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
    return Image.fromarray(values).resize(size, Image.Resampling.BICUBIC)


def saved(picture: Image.Image, path: Path) -> str:
    picture.save(path)
    return str(path)


def opened(path: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path))


@pytest.fixture(scope="module")
def http(app: RunningApp) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=app.url, timeout=120) as http:
        yield http


@pytest.fixture(scope="module")
def small(http: httpx.Client) -> dict[str, Any]:
    """A picture that was uploaded."""
    return upload(http, random_picture(1, (32, 32)))


# ------------------------------------------------------------------------------------------------------- answers


def test_endpoints_are_four_and_typed(client: Client) -> None:
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(endpoints) == {"/translate", "/draw", "/compare", "/batch"}
    types = {each["parameter_name"]: each["python_type"]["type"] for each in endpoints["/translate"]["parameters"]}
    assert set(types) == {"image", "model", "stochastic", "seed", "make_source"} and types["stochastic"] == "bool"


def test_translate_keeps_sixteen_bits(client: Client, app: RunningApp, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (40, 56, 3), np.uint16)
    wanted = pipeline_answer(app, "sixteen", values)
    for name in ("deep.png", "deep.tif"):
        (tmp_path / name).write_bytes(encode(Decoded(values, "rgb"), name, Path(name).suffix))
        result = client.predict(handle_file(tmp_path / name), "sixteen", api_name="/translate")
        made = read_image(Path(result), "result").values
        assert made.dtype == np.uint16
        np.testing.assert_array_equal(made, wanted)


def test_a_photo_is_made_the_source_that_training_had(client: Client, app: RunningApp, tmp_path: Path) -> None:
    photo = render_pair(5, (64, 96), seed=7)[1]
    file = handle_file(saved(photo, tmp_path / "my photo (1).png"))
    source, _ = make_pair(from_memory(photo, "x"), MakerOptions("edges", shorter_side=48), "x")
    made = opened(client.predict(file, "edges", False, 0, True, api_name="/translate"))
    assert made.shape == (48, 72, 3)
    np.testing.assert_array_equal(made, np.asarray(pipeline_answer(app, "edges", source.picture())))
    assert opened(client.predict(file, "edges", api_name="/translate")).shape == (64, 96, 3)
    with pytest.raises(AppError, match="make_source is for models trained on pairs"):
        client.predict(file, "demo", False, 0, True, api_name="/translate")


def test_variants_follow_from_the_seed(client: Client, tmp_path: Path) -> None:
    file = handle_file(saved(random_picture(2, (64, 64)), tmp_path / "a.png"))
    made = {}
    for seed in (3, 4, 3):
        result = client.predict(file, "demo", True, seed, api_name="/translate")
        assert np.array_equal(made.setdefault(seed, opened(result)), opened(result))
    assert not np.array_equal(made[3], made[4])
    plain = opened(client.predict(file, "demo", api_name="/translate"))
    assert not any(np.array_equal(plain, each) for each in made.values())


def test_draw_takes_any_size_and_only_the_classes_colours(client: Client, app: RunningApp, tmp_path: Path) -> None:
    source, _ = render_pair(1, (256, 256), seed=7)
    large = np.asarray(source.resize((512, 512), Image.Resampling.NEAREST)).astype(int)
    noisy = np.clip(large + np.random.default_rng(0).integers(-9, 10, large.shape), 0, 255).astype(np.uint8)
    wanted = np.asarray(pipeline_answer(app, "demo", source))
    for drawing in (source, Image.fromarray(noisy)):
        result = client.predict(handle_file(saved(drawing, tmp_path / "a.png")), "demo", api_name="/draw")
        np.testing.assert_array_equal(opened(result), wanted)


def test_compare_measures(client: Client, app: RunningApp, tmp_path: Path) -> None:
    source, target = render_pair(2, (96, 64), seed=7)
    files = [handle_file(saved(each, tmp_path / f"{name}.png")) for name, each in (("s", source), ("t", target))]
    generated, heat, metrics = client.predict(*files, api_name="/compare")
    made, true = (np.asarray(each).astype(float) for each in (pipeline_answer(app, "demo", source), target))
    assert abs(metrics["l1"] - np.abs(made - true).mean() / 255) < 2e-3
    assert abs(metrics["psnr"] - 10 * np.log10(255**2 / ((made - true) ** 2).mean())) < 0.05
    assert 0 < metrics["realism"] < 1 and 0 < metrics["realism_target"] < 1
    assert opened(generated).shape == opened(heat).shape


def test_batch_lists_what_failed(client: Client, app: RunningApp, tmp_path: Path) -> None:
    pictures = [random_picture(seed, (40, 40)) for seed in range(2)]
    names = [saved(picture, tmp_path / f"p{number}.png") for number, picture in enumerate(pictures)]
    (tmp_path / "bad.png").write_bytes(Path(names[0]).read_bytes()[:100])
    archive, outcomes = client.predict(
        [handle_file(name) for name in (names[0], str(tmp_path / "bad.png"), names[1])], api_name="/batch"
    )
    assert [each["file"] for each in outcomes] == ["p0.png", "bad.png", "p1.png"]
    assert "translated, but p0.png looks like a photo" in outcomes[0]["outcome"]
    assert "bad.png is damaged or truncated" in outcomes[1]["outcome"]
    with zipfile.ZipFile(archive) as content:
        assert content.namelist() == ["p0.png", "p1.png"]
        made = np.asarray(Image.open(io.BytesIO(content.read("p1.png"))))
    np.testing.assert_array_equal(made, np.asarray(pipeline_answer(app, "demo", pictures[1])))


def test_mcp_tools(app: RunningApp, http: httpx.Client) -> None:
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    picture, buffer = random_picture(6, (48, 48)), io.BytesIO()
    picture.save(buffer, format="PNG")
    image, broken = ("data:image/png;base64," + base64.b64encode(data).decode() for data in (buffer.getvalue(), b"no"))
    calls: tuple[tuple[str, dict[str, Any]], ...] = (
        ("translate", {"image": image}),
        ("translate", {"image": image, "model": "nobody/knows"}),
        ("compare", {"source": image, "target": image}),
        ("batch", {"images": [image, broken]}),
    )

    async def progress(*_: Any) -> None: ...

    async def ask() -> tuple[Any, ...]:
        address = f"{app.url}gradio_api/mcp/"
        async with streamable_http_client(address) as (read, write, _), ClientSession(read, write) as session:
            await session.initialize()
            answers = [await session.call_tool(*call, progress_callback=progress) for call in calls]
            return (await session.list_tools()).tools, *answers

    with ThreadPoolExecutor(1) as thread:  # the browser's tests may have an event loop in this one
        tools, answer, refused, compared, batch = thread.submit(asyncio.run, ask()).result()
    schemas = {tool.name: tool.inputSchema["properties"] for tool in tools}
    assert set(schemas) == {"translate", "draw", "compare", "batch"}
    assert "dropout" in schemas["translate"]["stochastic"]["description"]
    made = Image.open(io.BytesIO(base64.b64decode(answer.content[0].data)))
    np.testing.assert_array_equal(np.asarray(made), np.asarray(pipeline_answer(app, "demo", picture)))
    assert refused.isError and "is not offered here" in refused.content[0].text
    assert [each.type for each in compared.content] == ["image", "text", "image", "text", "text"]
    assert "psnr" in compared.content[-1].text
    assert not batch.isError, batch.content[0].text
    with zipfile.ZipFile(io.BytesIO(http.get(batch.content[0].text).content)) as archive:
        assert archive.namelist() == ["picture_1.png"]
        np.testing.assert_array_equal(np.asarray(Image.open(archive.open("picture_1.png"))), np.asarray(made))
    assert "picture_2 is not a picture" in batch.content[1].text


# ------------------------------------------------------------------------------------------------------- many at once


def test_forty_clients_each_get_their_own_picture_of_any_size(app: RunningApp, http: httpx.Client) -> None:
    """Over plain HTTP, and without much memory: `campaigns/clients.py` lets them come again and again, and attacks."""
    sizes = [(32, 32), (64, 48), (128, 128), (31, 77), (201, 90)] * 8
    pictures = [random_picture(seed, size) for seed, size in enumerate(sizes)]
    wanted = [np.asarray(pipeline_answer(app, "demo", picture)) for picture in pictures]
    before = psutil.Process().memory_info().rss

    def translated(picture: Image.Image) -> NDArray[np.uint8]:
        answer = called(http, "translate", [upload(http, picture), "demo", False, 0, False])
        assert "event: complete" in answer, answer
        result = http.get(json.loads(answer.rsplit("data: ", 1)[1])[0]["url"])
        return np.asarray(Image.open(io.BytesIO(result.content)))

    with ThreadPoolExecutor(40) as clients:
        answers = list(clients.map(translated, pictures))
    for answer, expected in zip(answers, wanted, strict=True):
        np.testing.assert_array_equal(answer, expected)
    assert psutil.Process().memory_info().rss - before < 500e6


def test_one_client_leaves_places_to_others_and_a_full_queue_says_so(
    app: RunningApp, http: httpx.Client, small: dict[str, Any]
) -> None:
    events, refused = [], []
    for address in ("127.0.0.1", "127.0.0.2"):
        transport = httpx.HTTPTransport(local_address=address)
        with httpx.Client(base_url=f"{app.url}gradio_api/call/", timeout=60, transport=transport) as at:
            while len(refused) == (address == "127.0.0.2"):
                answer = at.post("translate", json={"data": [small, "demo", False, 0, False]})
                if answer.status_code == 200:
                    events.append(answer.json()["event_id"])
                else:
                    refused.append((answer.status_code, answer.text, len(events)))
    (status, text, places), (full_status, full_text, waiting) = refused
    assert (status, places) == (429, app.limits.max_places) and "waiting already" in text
    assert (full_status, waiting) == (503, app.limits.max_queue) and "queue is full" in full_text.lower()
    for event in events:
        assert "event: complete" in http.get(f"gradio_api/call/translate/{event}").text


# ------------------------------------------------------------------------------------------------------- abuse


def refusal(client: Client, *arguments: Any, api_name: str = "/translate") -> str:
    with pytest.raises(AppError) as caught:
        client.predict(*arguments, api_name=api_name)
    text = str(caught.value)
    assert "Traceback" not in text and "/tmp/" not in text and len(text) < 400
    return text


def test_pictures_that_are_none(client: Client, tmp_path: Path) -> None:
    def header(width: int, height: int) -> bytes:
        """A PNG that says it is so large, and holds nothing."""
        data = bytearray(no_pixels.getvalue())
        data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
        return bytes(data)

    no_pixels, cut = io.BytesIO(), io.BytesIO()
    Image.new("L", (1, 1)).save(no_pixels, format="PNG")
    random_picture(1, (200, 200)).save(cut, format="JPEG")
    for name, content, text in (  # names as they came, with no capital letter
        ("moving.gif", b"GIF89a" + bytes(99), "moving.gif is not a picture that is read here"),
        ("drawn.svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "drawn.svg is not a picture that is read here"),
        ("text.png", b"not a picture", "text.png is not a picture that is read here"),
        ("huge.png", header(30_000, 30_000), "huge.png has too many pixels; at most 2 megapixels"),
        ("large.png", header(2_000, 1_001), "large.png has too many pixels; at most 2 megapixels"),
        ("empty.png", b"", "empty.png is not a picture"),
        ("cut.jpg", cut.getvalue()[:2000], "cut.jpg is damaged or truncated"),
    ):
        (tmp_path / name).write_bytes(content)
        for endpoint in ("/translate", "/draw"):
            assert text in refusal(client, handle_file(tmp_path / name), api_name=endpoint)


def test_names_that_are_paths_or_markup(
    client: Client, app: RunningApp, http: httpx.Client, small: dict[str, Any]
) -> None:
    markup = "<img src=x onerror=alert(1)>.png"
    for name in ("../../../../tmp/escaped.png", "..\\..\\x.png", markup, "a" * 300 + ".png"):
        files = {"files": (name, Path(small["path"]).read_bytes())}
        path = http.post("gradio_api/upload", files=files).json()[0]
        assert Path(path).resolve().is_relative_to(app.files.resolve())
        archive, outcomes = client.predict([{"path": path, **META}], api_name="/batch")
        assert outcomes[0]["outcome"].startswith("translated")
        with zipfile.ZipFile(archive) as content:
            (inside,) = content.namelist()
        assert "/" not in inside and "\\" not in inside and "<" not in inside and len(inside) < 80


def test_no_file_that_nobody_uploaded_is_read(
    app: RunningApp, http: httpx.Client, tmp_path: Path, small: dict[str, Any]
) -> None:
    """However it is sent, and nobody learns whether it is there; at every input of every event, public or private."""
    secret = secret_picture(tmp_path)
    places = hostile_places(secret, app.files)
    ways = [way for place in places for way in files_named(place)[:-1]]  # no texts
    for way in ways:
        with pytest.raises(UserError) as refused:
            uploads_only([small, {"deep": [way]}], app.files.resolve())
        assert str(refused.value) == UNREADABLE
    assert len(ways) > 150
    said, next_way = set(), itertools.cycle(ways[::6])  # all places, and all ways to send one
    events = http.get("config").json()["dependencies"]
    for event in events:
        for position in range(len(event["inputs"])):
            way = next(next_way)
            values = [small] * position + [way] + [None] * (len(event["inputs"]) - position - 1)
            answered, text = ask(http, {"data": values, "fn_index": event["id"], "event_data": {"index": 0}})
            assert not answered and str(tmp_path) not in text, (event["api_name"], way)
            said.add(json.loads(text[6:])["output"]["error"])
    assert sum(len(event["inputs"]) for event in events) >= len(ways[::6]) and len(said) == 1, said
    for place in places[:12]:
        assert http.get(f"gradio_api/file={place}").status_code in (403, 404), place


def test_names_of_uploads_cannot_be_guessed(http: httpx.Client, tmp_path: Path) -> None:
    path = Path(upload(http, secret_picture(tmp_path))["path"])
    seed = Path(gradio.__file__).with_name("hash_seed.txt")  # the same in all containers of an image
    for known in (b"", seed.read_bytes() if seed.exists() else b""):
        assert path.parent.name != hashlib.sha256(known + path.read_bytes()).hexdigest()


def test_junk_is_answered_in_a_line(http: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    for route, content in (
        ("queue/join", b'{"data":[],"fn_index":99,"session_hash":"x"}'),
        ("queue/join", b'{"data":[],"session_hash":"x"}'),
        *(
            ("queue/join", b'{"data":[],"fn_index":0,"session_hash":"%b"}' % session)
            for session in (b"\\ud800", b"x" * 65, b"a b", b"", "ä".encode())
        ),
        ("queue/join", b"[" * 100_000),
        ("call/nothing", b'{"data":[]}'),
        ("call/v2/nothing", b"{}"),
        ("component_server", b"{}"),
        ("run/translate", b'{"data":[]}'),
        ("process_recording", b""),
    ):
        answer = http.post(f"gradio_api/{route}", content=content, headers={"content-type": "application/json"})
        assert 400 <= answer.status_code < 500 and len(answer.text) < 300, (route, answer.status_code, answer.text)
    for route in ("queue/data?session_hash=nobody", "call/translate/nothing"):
        assert http.get(f"gradio_api/{route}").status_code == 404
    for random in map(Random, range(40)):  # `campaigns/strangers.py` sends thousands
        with http.stream(**junk_request(random)) as answer:
            assert answer.status_code < 500
    assert "Traceback" not in caplog.text


def test_nothing_is_fetched_from_addresses(app: RunningApp, http: httpx.Client) -> None:
    address = f"{app.url}static/img/logo.svg"
    answer = called(http, "translate", [{"path": address, "url": address, **META}, None, False, 0, False])
    assert "web address came in place of a picture" in answer
    for route in (f"file={address}", "file=HTTPS://example.com/", "proxy=https://example.hf.space/x"):
        assert http.get(f"gradio_api/{route}").status_code == 403


def test_values_of_other_types(http: httpx.Client) -> None:
    """Refused in words, also for who speaks plain HTTP, and without filling the log."""
    for endpoint, data in (
        ("translate", [3, None, False, 0, False]),
        ("translate", [SECRET, None, False, 0, False]),
        ("translate", [{"path": 7}, None, False, 0, False]),
        ("translate", [None, None, True, "seven", False]),
        ("translate", [None, None, True, [7], False]),
        ("translate", []),
        ("compare", [None, "text", None]),
        ("batch", [{}, None]),
        ("batch", [[SECRET], None]),
        ("batch", [["data:image/png;base64,§"], None]),
        ("batch", [[None], None]),
    ):
        answer = called(http, endpoint, data)
        assert "event: error" in answer and "send each picture as an uploaded file" in answer, (endpoint, data)


def test_values_out_of_range(client: Client, small: dict[str, Any], tmp_path: Path) -> None:
    assert "seed is -1; expected" in refusal(client, small, "demo", True, -1).lower()
    refusal(client, small, "demo", True, 10**30)
    assert "needs two pictures" in refusal(client, small, None, api_name="/compare")
    other = handle_file(saved(random_picture(1, (48, 32)), tmp_path / "b.png"))
    assert "expected one size" in refusal(client, small, other, api_name="/compare")
    assert "no picture yet" in refusal(client, None)
    assert "no files yet" in refusal(client, [], api_name="/batch")


def test_three_hundred_megabytes_are_not_waited_for(app: RunningApp) -> None:
    """Refused when they are announced, and where they are not announced, once too much has come."""
    host, port = urlsplit(app.url).hostname, urlsplit(app.url).port
    for route in ("upload", "queue/join", "mcp/"):
        with socket.create_connection((host, port), timeout=60) as connection:
            request = f"POST /gradio_api/{route} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 300000000\r\n\r\n"
            connection.sendall(request.encode())
            assert b" 413 " in connection.recv(4096).split(b"\r\n")[0]

    with socket.create_connection((host, port), timeout=60) as connection:
        head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: {host}:{port}\r\nTransfer-Encoding: chunked\r\n"
        connection.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n".encode())
        part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        sent, answered = 0, False
        while sent < 300e6 and not answered:
            connection.sendall(b"%x\r\n%b\r\n" % (len(part), part))
            sent, part = sent + len(part), bytes(1 << 20)
            answered = bool(select.select([connection], [], [], 0)[0])
        assert answered and b" 413 " in connection.recv(4096).split(b"\r\n")[0]
        assert sent < 100e6
    left = sum(file.stat().st_size for file in app.files.rglob("*") if file.is_file())
    assert left < 30e6


def test_one_file_of_too_many_megabytes(app: RunningApp, http: httpx.Client, tmp_path: Path) -> None:
    path = tmp_path / "heavy.bmp"
    random_picture(1, (1300, 1300)).save(path)
    assert path.stat().st_size > app.limits.max_upload_mb * 1e6
    with open(path, "rb") as file:
        answer = http.post("gradio_api/upload", files={"files": file})
    assert answer.status_code == 413 and "maximum allowed size" in answer.text
