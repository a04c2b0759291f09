"""Gradio's queue, shared fairly: whoever has used least goes first, and nothing is computed for those who have left."""

from __future__ import annotations

import re
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr
from fastapi import HTTPException
from gradio.queueing import Event, Queue

from pix2pix_hub.ui.limits import VISIT, Visit

PATIENCE, PATIENCE_WHEN_FULL = 30.0, 1.0  # seconds that a request waits for somebody to ask for its answer
HALF_LIFE = 60.0  # seconds after which half of what a client has used is forgotten
SESSION = re.compile(r"[\w-]{1,64}", re.ASCII)
MAX_CLIENTS = 1024  # whose use is remembered


class FairQueue(Queue):
    """A queue whose clients, told apart by their address, take turns.

    Behind a proxy the address is the client's own where uvicorn is told to trust it (`FORWARDED_ALLOW_IPS`).

    Args:
        demo: the page.
        max_size: requests that wait, of all clients.
        max_places: of one client's.
    """

    def __init__(self, demo: gr.Blocks, max_size: int, max_places: int) -> None:
        super().__init__(True, demo.max_threads, 1, max_size, demo, default_concurrency_limit=2)
        self.max_places = max_places
        self._listeners: Counter[str] = Counter()  # sessions and events whose answers somebody reads
        self._used: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client → seconds of computing, at this time
        self._visits: dict[str, Visit] = {}  # of the events that are being answered

    def knows(self, session_or_event: str) -> bool:
        """Whether there are, or may yet be, answers to read for it."""
        sessions = self.pending_event_ids_session
        return session_or_event in self.pending_messages_per_session or any(
            session_or_event in events for events in sessions.values()
        )

    @contextmanager
    def listening(self, session_or_event: str) -> Iterator[None]:
        """The time in which somebody reads the answers of a session or an event."""
        self._listeners[session_or_event] += 1
        try:
            yield
        finally:
            self._listeners -= Counter([session_or_event])

    async def push(self, body: Any, request: Any, username: str | None) -> Any:
        """Let a request wait; as `Queue.push`.

        Raises:
            HTTPException: status 429, the client has as many waiting as it may; 422, a session that is no name.
        """
        if body.session_hash is not None and not SESSION.fullmatch(body.session_hash):
            raise HTTPException(422, "session_hash: expected up to 64 letters and digits.")
        latest = time.monotonic() - (PATIENCE if len(self) < (self.max_size or 0) else PATIENCE_WHEN_FULL)
        for event in self._waiting():
            if event.enqueue_time < latest and not self._is_awaited(event):
                await self.clean_events(session_hash=event.session_hash)
        if sum(_client(event.request) == _client(request) for event in self._waiting()) >= self.max_places:
            raise HTTPException(429, f"{self.max_places} of your requests are waiting already: try again later.")
        return await super().push(body, request, username)

    def get_events(self) -> tuple[list[Event], bool, str] | None:
        """The next request to answer, if any: of those that are listened to, one of the client that has used least."""
        ready = [
            event
            for queue in self.event_queue_per_concurrency_id.values()
            if queue.concurrency_limit is None or queue.current_concurrency < queue.concurrency_limit
            for event in queue.queue
            if self._is_awaited(event)
        ]
        if not ready:
            return None
        running = Counter(_client(event.request) for job in self.active_jobs for event in job or [])

        def turn(event: Event) -> tuple[int, float, float]:
            client = _client(event.request)
            return running[client], self._seconds(client), event.enqueue_time

        event = min(ready, key=turn)
        self.event_queue_per_concurrency_id[event.concurrency_id].queue.remove(event)
        return [event], False, event.concurrency_id

    async def process_events(self, events: list[Event], *arguments: Any) -> None:
        """Answer, and remember how long that kept others waiting; as `Queue.process_events`."""
        client, visit = _client(events[0].request), Visit()
        self._visits[events[0]._id] = visit
        VISIT.set(visit)  # in this task, and the threads it starts
        try:
            await super().process_events(events, *arguments)
        finally:
            del self._visits[events[0]._id]
            self._used[client] = (self._seconds(client) + visit.seconds, time.monotonic())
            self._used.move_to_end(client)
            while len(self._used) > MAX_CLIENTS:
                self._used.popitem(last=False)

    async def clean_events(self, *, session_hash: str | None = None, event_id: str | None = None) -> None:
        """Forget those who have left, and what is being computed for them; as `Queue.clean_events`."""
        await super().clean_events(session_hash=session_hash, event_id=event_id)
        for event in (event for job in self.active_jobs for event in job or []):
            if not event.alive and (visit := self._visits.get(event._id)):
                visit.abandoned = True

    def compute_analytics_summary(self, records: Any) -> Any:
        """Nothing: Gradio would sum up all requests after each one, for a monitor that is not shown here."""
        return self.cached_event_analytics_summary

    def _waiting(self) -> list[Event]:
        return [event for queue in self.event_queue_per_concurrency_id.values() for event in queue.queue]

    def _is_awaited(self, event: Event) -> bool:
        return bool(self._listeners[event._id] or self._listeners[event.session_hash])

    def _seconds(self, client: str) -> float:
        """What a client has used lately."""
        seconds, then = self._used.get(client, (0.0, 0.0))
        return seconds * 0.5 ** ((time.monotonic() - then) / HALF_LIFE)


def _client(request: Any) -> str:
    return request.client.host if request.client else ""
