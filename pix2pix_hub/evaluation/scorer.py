"""What counts classes for `--task`: the pixels of generated images against their label maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor

from pix2pix_hub.data.transforms import PairTensors
from pix2pix_hub.evaluation.options import EvaluationOptions
from pix2pix_hub.evaluation.outputs import Scorer
from pix2pix_hub.evaluation.pairs import EvaluationPairs
from pix2pix_hub.evaluation.segmentation import confusion, find_classes
from pix2pix_hub.evaluation.segmenter import LabelledPhotos, segmenter_for
from pix2pix_hub.util import UserError


def make_scorer(
    pairs: EvaluationPairs,
    options: EvaluationOptions,
    image_size: tuple[int, int],
    resize: str,
    order: Tensor,
    state: PartialState,
) -> tuple[Scorer | None, dict[str, Any] | None]:
    """What counts classes for `--task`, and what it is.

    Raises:
        UserError: the set has no label maps where the task wants them, or no training pairs.
    """
    if options.task == "none":
        return None, None
    photo_side, label_side = ("target", "source") if options.task == "segmentation" else ("source", "target")
    known = pairs.training or pairs.evaluated
    classes = find_classes(known, label_side, options.task)
    about: dict[str, Any] = {"task": options.task, "classes": len(classes), "network": None}
    find: Callable[[Tensor], Tensor] = classes.of_generated
    if options.task == "segmentation":
        if pairs.training is None:
            raise UserError(
                "--task segmentation trains a network on the set's real photos, and this set has no split "
                "for it: name one with --train-split."
            )
        photos = LabelledPhotos(pairs.training, photo_side, classes)
        with state.main_process_first():  # which trains; the others find what it kept
            find, about["network"] = segmenter_for(
                photos, image_size, resize, pairs.fingerprint, state.device, options.segmenter
            )
    evaluated = LabelledPhotos(pairs.evaluated, photo_side, classes)
    truths = PairTensors(evaluated, evaluated.transform(image_size, resize, augment=False))
    partner = order.roll(-1)[order.argsort()].tolist()

    def score(generated: Tensor, indices: list[int]) -> dict[str, Tensor]:
        """Classes of generated images against their own labels and another pair's; of real photos against theirs."""
        own = [truths[index] for index in indices]
        truth = torch.stack([pair["target"] for pair in own]).argmax(1)
        other = torch.stack([truths[partner[index]]["target"] for index in indices]).argmax(1)
        found = find(generated)
        counts = {
            "generated": confusion(truth, found, len(classes)),
            "shuffled": confusion(other, found, len(classes)),
        }
        if options.task == "segmentation":
            real = torch.stack([pair["source"] for pair in own]).to(generated.device)
            counts["real"] = confusion(truth, find(real), len(classes))
        return counts

    return score, about
