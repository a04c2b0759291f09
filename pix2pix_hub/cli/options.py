"""What the options of all commands share: the model that they name, and an answer to names that are none."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, get_args, get_type_hints

from tyro.conf import Positional, arg

from pix2pix_hub.config import flag
from pix2pix_hub.util import UserError

Model = Annotated[
    str,
    Positional,
    arg(metavar="MODEL", help="Export, run folder, or Hub id (user/name, user/name@revision)."),
]

# What Diffusers' and Transformers' scripts, Ultralytics and pytorch-CycleGAN-and-pix2pix call it → what it may be here.
ELSEWHERE = {
    "adam-beta1": "beta1", "adam-beta2": "beta2", "batch": "batch-size", "bf16": "mixed-precision",
    "checkpointing-steps": "checkpoint-every", "checkpoints-dir": "output-dir", "continue-train": "resume",
    "crop-size": "image-size", "data": "dataset", "data-dir": "dataset", "dataloader-num-workers": "num-workers",
    "dataroot": "dataset", "dataset-name": "dataset", "fp16": "mixed-precision", "gan-mode": "gan-loss",
    "hub-model-id": "push-to-hub", "img-size": "image-size", "imgsz": "image-size", "input-nc": "source-mode",
    "lambda-l1": "l1-weight", "load-size": "jitter-scale", "lr": "learning-rate", "lr0": "learning-rate",
    "max-train-samples": "max-train-pairs", "max-train-steps": "max-steps", "n-epochs": "epochs",
    "n-epochs-decay": "decay-epochs", "name": "output-dir", "ndf": "discriminator-base-channels", "netg": "generator",
    "ngf": "base-channels", "niter": "epochs", "niter-decay": "decay-epochs", "no-flip": "flip-probability",
    "num-epochs": "epochs", "num-threads": "num-workers", "num-train-epochs": "epochs", "output-nc": "target-mode",
    "per-device-train-batch-size": "batch-size", "pretrained-model-name-or-path": "init-from", "project": "output-dir",
    "resolution": "image-size", "results-dir": "output", "resume-from-checkpoint": "resume", "save-dir": "output-dir",
    "torch-dtype": "dtype", "train-batch-size": "batch-size", "train-data-dir": "dataset", "weights": "init-from",
    "workers": "num-workers",
}  # fmt: skip


def option_names(call: Callable[..., Any]) -> set[str]:
    """The names that tyro gives the options of a function or dataclass, those of dataclasses inside it too."""
    names = {"-h", "--help"}
    for name, hint in get_type_hints(call, include_extras=True).items():
        kind, *marks = get_args(hint) if hasattr(hint, "__metadata__") else (hint,)
        if dataclasses.is_dataclass(kind):
            names |= option_names(kind)  # type: ignore[arg-type]
        elif name != "return" and Positional not in marks:
            negative = {flag(f"no_{name}")} if kind is bool else set()
            names |= {flag(name), *negative}.union(*(getattr(mark, "aliases", None) or () for mark in marks))
    return names


def refuse_unknown(words: Sequence[str], call: Callable[..., Any], command: str) -> None:
    """Raise `UserError` where words name options that `call` does not have, with what they are called here."""
    known, answers = option_names(call), []
    for word in words[: words.index("--")] if "--" in words else words:
        given = word.partition("=")[0]
        name = given.replace("_", "-")
        if not re.match("--?[A-Za-z]", name) or name in known or name.startswith("--tyro-"):
            continue
        here = ELSEWHERE.get(name.lstrip("-").lower())
        close = [option for option in sorted(known, key=len) if f"-{name.lstrip('-')}" in option]  # a word of its name
        close = close or difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.75)
        if here is not None and f"--{here}" in known:
            answers.append(f"{given} is called --{here} here")
        else:
            answers.append(f"there is no option {given}" + (f"; did you mean {close[0]}?" if close else ""))
    if answers:
        raise UserError("\n".join(answers) + f"\n`pix2pix-hub {command} --help` lists all options.")
