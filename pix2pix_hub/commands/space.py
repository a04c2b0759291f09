"""`pix2pix-hub space push`."""

from __future__ import annotations

from tyro.conf import Positional

from pix2pix_hub.commands.output import say
from pix2pix_hub.errors import UserError


def space_push(
    repo_id: Positional[str],
    model: str,
    hardware: str | None = None,
    private: bool = False,
) -> None:
    """Make or update a Hugging Face Space that shows a published model, as one commit.

    Args:
        repo_id: Space, user/name; made where it does not exist.
        model: Hub id of the model, user/name or user/name@revision; several with commas between them give a picker.
        hardware: What it runs on, as the Hub calls it (cpu-basic, t4-small, zero-a10g, …); None: what it has.
        private: Make the Space private.
    """
    from pix2pix_hub.hub.space import push_space

    models = [name.strip() for name in model.split(",") if name.strip()]
    if not models:
        raise UserError("--model names no model: give the Hub id of one, user/name.")
    say(f"pushed {repo_id}: {push_space(repo_id, models, hardware=hardware, private=private)}")
