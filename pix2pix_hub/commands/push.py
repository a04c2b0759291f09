"""`pix2pix-hub push`."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from pix2pix_hub.commands.output import say


def push(
    run_or_export: Positional[Path],
    repo_id: Positional[str],
    private: bool = False,
    revision: str | None = None,
    best: bool = False,
    license: str | None = None,
    message: str | None = None,
) -> None:
    """Publish a trained model on the Hugging Face Hub, as one commit.

    Args:
        run_or_export: Run folder (its `model/` is pushed), or an export.
        repo_id: Model repository, user/name; made where it does not exist.
        private: Make the repository private.
        revision: Branch to push to, made where it does not exist; None: the main one.
        best: Push the run's `model_best/` instead of its `model/`.
        license: Licence of the weights, as the Hub spells it; None: what the card says already, else apache-2.0.
        message: Title of the commit; None: epoch and step of the run.
    """
    import filecmp

    from pix2pix_hub.export import MODEL, WEIGHTS_NAME
    from pix2pix_hub.hub.push import find_export, push_export

    folder = find_export(run_or_export, best=best)
    last = run_or_export / MODEL / WEIGHTS_NAME
    if best and last.is_file() and filecmp.cmp(folder / WEIGHTS_NAME, last, shallow=False):
        say("model_best/ and model/ hold the same weights: the best epoch is the last one.")
    url = push_export(folder, repo_id, private=private, revision=revision, license=license, message=message)
    say(f"pushed {folder}: {url}")
