"""One client against the app: files that nobody uploaded, at every event and through MCP, and junk of all kinds."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import httpx
from _app_process import running_app
from hostile_requests import JUNK_VALUES, ask, files_named, hostile_places, junk_request, secret_picture, upload

COUNT = 3000
REFUSALS = ('role=\\"alert\\"', "is not offered here")  # in JSON: said in the place of a result, or of a model


def cases(random: Random, folder: Path) -> Iterator[tuple[str, str]]:
    """Kinds: "path", "junk", "values" (as they should be, but for what they are), "mcp", "upload" (as it should be)."""
    secret = secret_picture(folder)
    with running_app(folder) as app, httpx.Client(base_url=app.url, timeout=120) as http:
        mine = upload(http, secret)
        uploads = Path(mine["path"]).parents[1]
        places = hostile_places(secret, uploads)
        events = [event for event in http.get("config").json()["dependencies"] if event["inputs"]]
        assert ask(http, body(events[0], [mine, None, 1, 0, False]))[0]
        app.start = app.peak
        while True:
            kind = random.choice(["path"] * 6 + ["junk"] * 6 + ["values"] * 6 + ["mcp", "upload"])
            event = random.choice(events)
            values = [random.choice([mine, [mine], *JUNK_VALUES]) for _ in event["inputs"]]
            try:
                if kind == "path":
                    way = random.choice(files_named(random.choice(places)))
                    values[random.randrange(len(values))] = way
                    # a text in a field for texts is told again: "the model '/any/where' is not offered here"
                    told = (secret, secret.parent, uploads) if not isinstance(way, str) else ()
                    outcome = judged(ask(http, body(event, values, random)), told)
                elif kind == "values":
                    outcome = judged(ask(http, body(event, values, random)), (secret, secret.parent), may_answer=True)
                elif kind == "junk":
                    with http.stream(**junk_request(random)) as answer:
                        outcome = f"status {answer.status_code}" if answer.status_code in (500, 501, 502) else "refused"
                elif kind == "mcp":
                    place = random.choice(places)
                    sent = random.choice([place, {"path": place}, f"data:image/png;base64,{place}", app.url + place])
                    outcome = asyncio.run(told_by_mcp(app.url, random.choice(["translate", "draw"]), sent))
                else:
                    event = random.choice([each for each in events if each["api_name"] in ("translate", "draw")])
                    values = [mine, None, False, 0, False][: len(event["inputs"])]
                    outcome = "right" if ask(http, body(event, values))[0] else "an upload is refused"
            except httpx.TransportError as error:
                outcome = repr(error)
            complaints = app.complaints()
            yield kind, complaints[0] if complaints else outcome


def body(event: dict[str, Any], values: list[Any], random: Random | None = None) -> dict[str, Any]:
    """What joins the queue for an event, with junk for what the page says of a click."""
    extra: dict[str, Any] = {"event_data": None, "trigger_id": event["targets"][0][0]}
    if random:
        index = random.choice([0, *JUNK_VALUES])
        extra["event_data"] = random.choice([None, {"index": index, "value": None}, *JUNK_VALUES])
    return {"data": values, "fn_index": event["id"], **extra}


def judged(answer: tuple[bool, str], untold: tuple[Path, ...], may_answer: bool = False) -> str:
    """An answer to values that hold a hostile path; `may_answer`: to such as hold none."""
    answered, text = answer
    if any(str(place) in text for place in untold):
        return "a path is told"
    if answered and not any(words in text for words in REFUSALS):
        return "right" if may_answer else "answered"
    return "refused"


async def told_by_mcp(url: str, tool: str, sent: Any) -> str:
    """How a tool answers a hostile picture."""
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    async with (
        streamable_http_client(f"{url}gradio_api/mcp/") as (read, write, _),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        answer = await session.call_tool(tool, {"image": sent, "model": secrets.choice([None, ""])})
    return "refused" if answer.isError else "answered"
