"""`pix2pix-hub evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from pix2pix_hub.cli.options import Model
from pix2pix_hub.config import EvaluationOptions
from pix2pix_hub.util import UserError, counted, say

if TYPE_CHECKING:
    from pix2pix_hub.evaluation.evaluate import EvaluatedModel


def evaluate_model(
    model: Model,
    dataset: Annotated[str, Positional, arg(metavar="DATASET")],
    evaluation: EvaluationOptions,
    update_card: bool = False,
) -> None:
    """Measure a model: metrics with confidence intervals, task scores, and checks a person would make.

    Writes metrics.json, per_image.csv and pictures. Pairs are read at the size the model was trained at, as its
    training validated; the same command on the same machine gives the same digits. Works under
    `accelerate launch -m pix2pix_hub.cli evaluate …`, on any number of processes.

    Args:
        dataset: Pairs to measure on: as in training.
        evaluation: How the model is measured.
        update_card: Enter the results in the model's card.
    """
    from pix2pix_hub.devices import relaunch_on_cpus

    relaunch_on_cpus()
    import torch

    from pix2pix_hub.devices import keep_freed_memory, process_state, set_cpu_threads
    from pix2pix_hub.evaluation.evaluate import evaluate, load_model
    from pix2pix_hub.evaluation.report import FILES, check_output, describe, write_evaluation

    if update_card and not Path(model).exists():
        raise UserError(f"--update-card enters results in the card of a model on this machine, and {model} is none.")
    check_output(evaluation.output)
    set_cpu_threads(evaluation.cpu_threads)
    keep_freed_memory()
    torch.backends.cudnn.deterministic = True
    state = process_state()
    measured = load_model(model, revision=evaluation.revision)
    found = evaluate(measured, dataset, evaluation, state)
    if found is not None:
        content = write_evaluation(found, evaluation.output)
        say(describe(content, found))
        written = sorted(name for name in FILES if (evaluation.output / name).is_file())
        say(f"written to {evaluation.output}: {', '.join(written)}")
        if Path(model).exists() and (card := measured.folder / "README.md").is_file():
            if update_card:
                say(enter_in_card(card, content, measured))
            elif not unlike_cards(content, measured):
                say(f"--update-card enters them in {card}")
        if all(content[name]["value"] is None for name in evaluation.metrics) and "segmentation" not in content:
            raise UserError(f"nothing that was asked for could be measured; {evaluation.output} says why of each.")
    state.destroy_process_group()


def unlike_cards(content: dict[str, Any], model: EvaluatedModel) -> str:
    """What results have that those of a card do not, in words; "" for nothing."""
    how, dataset = content["protocol"], content["dataset"]
    unlike = {
        f"the first {how['max_pairs']} pairs alone": how["max_pairs"] is not None,
        f"{counted(dataset['left_out'], 'bad pair')} left out": dataset["left_out"] > 0,
        "several samples of each source": how["num_samples"] > 1,
        "another size": tuple(how["image_size"]) != tuple(model.preprocessor.image_size),
        "another direction": dataset["direction"] != model.data_options.get("direction", dataset["direction"]),
        "reduced precision": how["precision"] != "float32",
    }
    return ", ".join(reason for reason, applies in unlike.items() if applies)


def enter_in_card(card: Path, content: dict[str, Any], model: EvaluatedModel) -> str:
    """Enter results in a model's card where they are what a card is read as; in words, what was done."""
    from yaml import YAMLError

    if reasons := unlike_cards(content, model):
        return f"not entered in {card}: {reasons}; a card's numbers are those of whole splits, measured as trained."
    try:
        entered = update_card(card, content)
    except (YAMLError, ValueError) as error:
        return f"not entered in {card}: its metadata cannot be read ({error})."
    return f"results entered in {card}" if entered else f"nothing to enter in {card}"


def update_card(path: Path, content: dict[str, Any]) -> bool:
    """Enter results in the `model-index` of a model card, in place of earlier ones of the same data and metric: every
    metric that has a value, named and rounded as the card's own, and the scores of a task. False: there are none."""
    from huggingface_hub import ModelCard

    from pix2pix_hub.hub.card import METRIC_NAMES, eval_results
    from pix2pix_hub.util import write_aside

    card, dataset = ModelCard.load(path), content["dataset"]
    values = {key: (name, content[key]["value"]) for key, name in METRIC_NAMES.items() if key in content}
    judged = content.get("segmentation")
    if judged is not None and judged.get("tells_apart", True):  # label maps are scored without a network
        task, scores = judged["task"], judged["generated"]
        values |= {
            name: (f"{name.replace('_', ' ').capitalize()}, --task {task} (higher is better)", score["value"])
            for name, score in scores.items()
        }
    measured = {name: (title, value) for name, (title, value) in values.items() if value is not None}
    results = eval_results(measured, dataset["id"], dataset["split"], dataset["revision"])
    if not results:
        return False
    kept = [old for old in card.data.eval_results or [] if not any(old.is_equal_except_value(new) for new in results)]
    card.data.model_name = card.data.model_name or content["model"]["id"].split("/")[-1]
    card.data.eval_results = kept + results
    with write_aside(path) as partial:
        partial.write_text(str(card))
    return True
