"""Checks of the networks' constructor arguments: `config.json` of a stranger reaches them as it is.

Each raises `ValueError` naming the argument, what came and what is allowed. The upper bounds are far above anything
useful; they keep an absurd value from costing time or memory.
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any

MAX_IMAGE_CHANNELS = 4096
MAX_BASE_CHANNELS = 4096


def check_count(name: str, value: Any, least: int, most: int) -> None:
    """A whole number from `least` to `most`."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name} is {reprlib.repr(value)}, expected a whole number from {least} to {most}.")


def check_channels(in_channels: Any, out_channels: Any, base_channels: Any) -> None:
    """The channel counts of a generator."""
    check_count("in_channels", in_channels, 1, MAX_IMAGE_CHANNELS)
    check_count("out_channels", out_channels, 1, MAX_IMAGE_CHANNELS)
    check_count("base_channels", base_channels, 1, MAX_BASE_CHANNELS)


def check_choice(name: str, value: Any, choices: Sequence[str | int]) -> None:
    """One of `choices`, of their type."""
    if type(value) is not type(choices[0]) or value not in choices:
        allowed = " or ".join([", ".join(map(repr, choices[:-1])), repr(choices[-1])])
        raise ValueError(f"{name} {reprlib.repr(value)} is unknown: expected {allowed}.")


def check_switch(name: str, value: Any) -> None:
    """True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {reprlib.repr(value)}, expected true or false.")


def check_probability(name: str, value: Any) -> None:
    """A number from 0 up to, but not, 1."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1:
        raise ValueError(f"{name} is {reprlib.repr(value)}, expected a number of at least 0 and below 1.")


def check_norm_statistics(norm: str, value: Any) -> None:
    """`"image"`, or `"running"`, which only batch norm has."""
    check_choice("norm_statistics", value, ("image", "running"))
    if value == "running" and norm != "batch":
        raise ValueError(f"norm_statistics is 'running', which norm {norm!r} has none of: expected 'image'.")
