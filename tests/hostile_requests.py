"""Requests to the app: such as are well-formed, try to read files that nobody uploaded, or are junk."""

from __future__ import annotations

import io
import json
import os
import secrets
from pathlib import Path
from random import Random
from typing import Any

import httpx
from PIL import Image

FIELDS = {"orig_name": "a.png", "size": 99, "mime_type": "image/png", "is_stream": False}
JSON = {"content-type": "application/json"}
META = {"meta": {"_type": "gradio.FileData"}}


def hostile_places(secret: Path, uploads: Path) -> list[str]:
    """Ways to write the path of an existing picture outside the uploads, and of what may be inside them.

    Args:
        secret: the picture; a link to it is made among the uploads, as if a mistake elsewhere had put it there.
        uploads: the folder that the app keeps them in.
    """
    link, folder = uploads / secrets.token_hex(16) / "link.png", uploads / secrets.token_hex(16)
    link.parent.mkdir()
    link.symlink_to(secret)
    folder.symlink_to(secret.parent)
    up = "../" * len(uploads.parts)
    return [
        str(secret),
        os.path.relpath(secret),
        f"{uploads}/{up}{secret.relative_to('/')}",
        f"{uploads}/x/../{up}{secret.relative_to('/')}",
        str(link),
        str(folder / secret.name),
        f"{uploads}",
        f"{uploads}/{'0' * 64}/image.png",
        f"{uploads}-beside/{secret.name}",
        f"file://{secret}",
        f"file:{secret}",
        f"/{secret}",
        f"/proc/self/root{secret}",
        f"{secret}\0.png",
        str(secret).replace("/", "%2f"),
        "~/x.png",
        "x" * 5000,
        "",
    ]


def files_named(place: str) -> list[Any]:
    """Ways to send a path in the place of an uploaded file."""
    url = {"url": f"/gradio_api/file={place}"}
    return [
        {"path": place, **META},
        {"path": place},
        {"path": place, "meta": {"_type": "x"}},
        {"path": place, "meta": None, **FIELDS},
        {"path": place, **META, **FIELDS, "is_stream": True},
        {"path": place, **url},
        {"path": None, **url, **META},
        {**url},
        [{"path": place}],
        {"image": {"path": place}, "caption": None},
        {"value": {"path": place, **META}, "path": place, **META},
        place,
    ]


def ask(http: httpx.Client, body: dict[str, Any]) -> tuple[bool, str]:
    """Join the queue with it and wait for the end: whether it was answered, and all that was said."""
    session = secrets.token_hex(6)
    joined = http.post(
        "gradio_api/queue/join", headers=JSON, content=json.dumps({"session_hash": session, **body}).encode()
    )
    if joined.status_code != 200:
        return False, joined.text
    with http.stream("GET", "gradio_api/queue/data", params={"session_hash": session}) as stream:
        for line in stream.iter_lines():
            message = json.loads(line[6:]) if line.startswith("data: ") else {}
            if message.get("msg") == "process_completed":
                return message["success"], line
    return False, "no answer"


def upload(http: httpx.Client, picture: Path | Image.Image) -> dict[str, Any]:
    """The file, or the picture as PNG, as events take it."""
    content = io.BytesIO(picture.read_bytes() if isinstance(picture, Path) else b"")
    if isinstance(picture, Image.Image):
        picture.save(content, "PNG")
    name = picture.name if isinstance(picture, Path) else "a.png"
    return {"path": http.post("gradio_api/upload", files={"files": (name, content.getvalue())}).json()[0], **META}


def called(http: httpx.Client, endpoint: str, data: list[Any]) -> str:
    """What an endpoint says to whoever speaks plain HTTP."""
    event = http.post(f"gradio_api/call/{endpoint}", json={"data": data}).json()["event_id"]
    return http.get(f"gradio_api/call/{endpoint}/{event}").text


def secret_picture(folder: Path) -> Path:
    """A picture that nobody uploaded."""
    path = folder / "secret.png"
    Image.effect_noise((61, 47), 80).save(path)
    return path


JUNK_VALUES: list[Any] = [None, 0, -1, 10**30, 1.5, "x", "", [], [[]], {}, {"a": [1]}, True, "\ud800", [None] * 50]
JUNK_VALUES += ["../../etc/passwd"]
ROUTES = """
    queue/join queue/data queue/status call/translate call/nothing call/translate/x call/v2/translate call/v2/nothing
    run/translate run/nothing api/translate api/predict upload upload_progress cancel reset component_server stream/x
    stream/x/close heartbeat/x process_recording vibe-edit undo-vibe-edit vibe-code deep_link file= file=/etc/hostname
    file/etc/hostname proxy=x info custom_component/1/client/component/x monitoring mcp/ mcp openapi.json theme.css
    nothing
""".split()


def junk_request(random: Random) -> dict[str, Any]:
    """Arguments of `httpx.Client.request`: any route, any body."""

    def value(depth: int = 0) -> Any:
        chosen = random.choice(JUNK_VALUES if depth > 3 else [*JUNK_VALUES, list, dict])
        if chosen is list:
            return [value(depth + 1) for _ in range(random.randrange(4))]
        if chosen is dict:
            names = "data fn_index session_hash event_data trigger_id api_name path meta url event_id".split()
            return {random.choice(names): value(depth + 1) for _ in range(random.randrange(5))}
        return chosen

    join = {"data": value(), "fn_index": random.choice([*range(-2, 20), value()])}
    join["session_hash"] = random.choice(["s", value()])
    join |= random.choice([{}, {"event_data": value(), "trigger_id": random.choice([value(), 6, 12, 31])}])
    body = random.choice([join, join, {"data": [value() for _ in range(random.randrange(6))]}, value()])
    broken = [b"{", b"", b"[" * 100_000, random.randbytes(200), b'{"data":NaN}', b"\xff\xfe"]
    content = random.choice([json.dumps(body).encode()] * 12 + broken)
    kinds = ["application/json"] * 20 + ["multipart/form-data", "multipart/form-data; boundary=x", "text/plain", ""]
    return {
        "method": random.choice(["POST"] * 9 + ["GET", "GET", "PUT", "HEAD"]),
        "url": f"gradio_api/{random.choice(['queue/join'] * 20 + ['call/translate'] * 10 + ROUTES)}",
        "content": content,
        "headers": {"content-type": random.choice(kinds)},
        "params": random.choice([{}, {"session_hash": "x"}, {"upload_id": "x"}, {"deep_link": "../x"}]),
    }
