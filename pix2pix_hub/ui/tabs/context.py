"""What every tab is given, and gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from pix2pix_hub.ui.exports import Example, Export
from pix2pix_hub.ui.handlers import Handlers

PANE = 420  # pixels: the height of the panes that pictures come and go in, so that nothing jumps


@dataclass(frozen=True, eq=False)
class Context:
    """Where a tab gets its model and its answers from."""

    handlers: Handlers
    picker: gr.Dropdown  # its value is the model's name
    export: Export | None  # of the first model, where it can be read without waiting


@dataclass(frozen=True, eq=False)
class Followers:
    """What changes in a tab when another model is picked."""

    components: list[Any]
    values: Callable[[Export], list[Any]]  # of the components, in their order
    then: tuple[Callable[..., Any], list[Any], list[Any]] | None = (
        None  # an event after that: function, inputs, outputs
    )


def first_example(export: Export | None) -> Example | None:
    """Of a model, where it has one."""
    return export.examples[0] if export and export.examples else None
