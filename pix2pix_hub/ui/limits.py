"""What one request may cost a public host, and the checks that hold it: before decoding, and while it runs."""

from __future__ import annotations

import os
import time
from contextvars import ContextVar
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pix2pix_hub.image.read import FORMATS, open_image, refuse_too_large
from pix2pix_hub.image.tiff import directories
from pix2pix_hub.util import UserError

READ_FORMATS = tuple(kind for kind in FORMATS if kind != "GIF")


@dataclass(frozen=True)
class Limits:
    """Bounds of one request. Each can be set by the environment variable `PIX2PIX_` + its name in capitals."""

    max_upload_mb: int = 25  # one file, in 10^6 bytes
    max_request_mb: int = 100  # one request's body: all files of a batch together
    max_message_mb: int = 4  # a body without files: a drawing, or a picture written into a message
    max_megapixels: float = 16.0  # one image, in 10^6 pixels
    max_seconds: float = 60.0  # of computing for one request
    max_files: int = 32  # in a batch
    max_variants: int = 8  # of one image
    max_models: int = 2  # in memory; the one not used for longest leaves
    max_queue: int = 128  # requests that wait; more are told to come back
    max_places: int = 16  # of them from one address

    @classmethod
    def from_environment(cls) -> Limits:
        """The defaults, but for what the environment says.

        Raises:
            UserError: a variable that holds no positive number.
        """
        chosen: dict[str, Any] = {}
        for field in fields(cls):
            variable = f"PIX2PIX_{field.name.upper()}"
            if text := os.environ.get(variable):
                value = _positive(variable, text)
                chosen[field.name] = int(value) if isinstance(field.default, int) else value
        return cls(**chosen)


def _positive(variable: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value < 1e9:
        raise UserError(f"{variable}={text!r}: expected a number from 1.")
    return value


def check_picture(path: Path, name: str, limits: Limits) -> None:
    """Refuse a file that is too large, or no picture, by its size and header alone.

    What passes is decoded in a few seconds, to at most 8 bytes a pixel (16-bit RGBA): 128 MB by default.

    Args:
        path: the file.
        name: what errors call it.
        limits: the bounds.

    Raises:
        UserError: more bytes or pixels than the limits allow, or none of `READ_FORMATS`.
    """
    size = path.stat().st_size
    if size > limits.max_upload_mb * 1e6:
        raise UserError(f"{name} has {size / 1e6:.1f} MB; at most {limits.max_upload_mb} MB are taken here.")
    most = limits.max_megapixels * 1e6
    data = path.read_bytes()
    image = open_image(data, name, formats=READ_FORMATS, max_pixels=most)
    if image.format == "TIFF":  # whose pages are all read
        refuse_too_large(image.height * len(directories(data, name)), image.width, name, max_pixels=most)


@dataclass
class Visit:
    """A request under way, as its queue and its work see it."""

    abandoned: bool = False  # nobody waits for the answer any more
    seconds: float = 0.0  # in which it kept others from a model


VISIT: ContextVar[Visit] = ContextVar("VISIT")  # of the request that is being worked on, where the queue has set it


class Deadline:
    """The end of a request; `check`, called between its steps, raises `UserError` once it has come, or nobody waits.

    Waiting for other requests counts, to decode or for the model. Decoding one picture is a step, and so is a tile:
    what `check_picture` lets pass takes seconds, not minutes.
    """

    def __init__(self, limits: Limits) -> None:
        self.max_seconds = limits.max_seconds
        self._end = time.monotonic() + limits.max_seconds

    @property
    def seconds_left(self) -> float:
        """Until the end, from 0."""
        return max(0.0, self._end - time.monotonic())

    def check(self) -> None:
        """Raise where no time is left, or nobody to answer to."""
        if (visit := VISIT.get(None)) and visit.abandoned:
            raise UserError("nobody waits for this any more.")
        if not self.seconds_left:
            raise UserError(f"this took longer than {self.max_seconds:g} seconds and was stopped: send less at once.")
