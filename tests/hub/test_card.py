"""The model card: made from the export's files, valid, and a person's words survive in it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hub_server import HubServer
from huggingface_hub import ModelCard
from PIL import Image
from run_exports import COMMIT, REPO, make_export

from pix2pix_hub.hub.card import MARKER, make_card, write_card
from pix2pix_hub.hub.push import push_export
from pix2pix_hub.image.format import PixelFormat
from pix2pix_hub.util import UserError


@pytest.fixture
def export(tmp_path: Path) -> Path:
    return make_export(tmp_path / "run" / "model")


def test_the_metadata_is_what_the_hub_reads(hub: HubServer, export: Path) -> None:
    made = ModelCard(make_card(export, REPO))
    made.validate()
    data = made.data
    assert (data.library_name, data.pipeline_tag, data.license) == ("pix2pix-hub", "image-to-image", "apache-2.0")
    assert data.datasets == ["user/streets"] and data.metrics == ["l1", "psnr"] and "pix2pix" in data.tags
    assert data.model_name == "streets"
    assert {result.metric_type: result.metric_value for result in data.eval_results} == {"l1": 0.123457, "psnr": 17.891}
    for result in data.eval_results:
        assert (result.task_type, result.dataset_type, result.dataset_revision) == (
            *("image-to-image", "user/streets", COMMIT),
        )


def test_it_says_what_the_run_was(export: Path) -> None:
    text = " ".join(make_card(export, REPO).split())
    for words in (
        "8-bit RGB images in, 8-bit RGB images out",
        "[user/streets](https://huggingface.co/datasets/user/streets)",
        "AtoB: label → photo",
        "![source, generated, target](samples.png)",
        "| L1, mean absolute difference, 0 to 1 (lower is better) | 0.1235 |",
        "| PSNR, dB (higher is better) | 17.89 |",
        "of 3 validation pairs at 32x64, after epoch 2 (step 6)",
        "```bash accelerate launch train_accelerate.py --dataset user/streets ```",
        f"revision `{COMMIT}`",
        "Some CPU, 2 threads; mixed precision: no",
        "1 h 2 min of training",
        "generator 1,234,567, discriminator 1,234",
        "python 3.11, torch 2.15",
        "| `image_size` | `32x64` |",
        "@inproceedings{isola2017image",
    ):
        assert words in text, words
    assert "d_loss" not in text and "None x" not in text and "{{" not in text


def test_a_local_data_set_is_named_but_not_linked(tmp_path: Path) -> None:
    export = make_export(tmp_path / "run" / "model", id="My Pairs_v2", fingerprint="files-0123456789abcdef")
    made = ModelCard(make_card(export, Path("run/model")))  # a folder, though it could be a repository's name
    assert made.data.datasets is None and "huggingface.co/datasets" not in made.text
    assert made.data.model_name == "pix2pix-My Pairs_v2"
    assert {(result.dataset_type, result.dataset_name) for result in made.data.eval_results} == {
        ("my-pairs-v2", "My Pairs_v2")
    }
    assert "fingerprint `files-0123456789abcdef`" in made.text
    assert "With the `pix2pix_hub` package installed, in the folder that holds `run/`:" in made.text


def test_the_command_can_be_typed_again_and_says_nothing_of_where_folders_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = f"--dataset {tmp_path}/secret/pairs --init-from=../other/run --output-dir runs/x --report-to tensorboard"
    words += " --perceptual-file=~/secret/net.pth"
    made = make_card(
        make_export(tmp_path / "runs" / "x" / "model", command=f"python train.py {words}"), Path("runs/x/model")
    )
    shown = "--dataset path/to/pairs --init-from=path/to/run --output-dir runs/x --report-to tensorboard"
    shown += " --perceptual-file=path/to/net.pth"
    assert f"```bash\npython train.py {shown}\n```" in made


@pytest.mark.parametrize(
    "target",
    [PixelFormat(), PixelFormat("gray", 1, "uint16", 0.0, 65535.0), PixelFormat("channels", 5, "float32", 0.0, 1.0)],
)
def test_its_three_lines_work_as_pasted(
    target: PixelFormat, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_export(make_export(tmp_path / "run" / "model", target=target), REPO)
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (50, 40)).save("source.png")
    (block,) = re.findall(r"```python\n(.*?)```", hub.repo(REPO).read("README.md").decode(), flags=re.DOTALL)
    assert len([line for line in block.splitlines() if line]) == 3
    names: dict = {}
    exec(block, names)
    if target.mode == "channels":
        assert names["generated"].shape == (40, 50, 5)
    else:
        assert Image.open("generated.png").size == (50, 40)


def edit(card: str, text: str) -> str:
    """The card with `text` below its marker."""
    made, marker, _ = card.partition(MARKER)
    return f"{made}{marker}\n{text}\n"


def kept(card: str) -> str:
    assert card.count(MARKER) == 1
    return card.split(MARKER)[1].strip()


def test_a_persons_part_survives_wherever_it_was_written(export: Path) -> None:
    def push(published: str | None) -> str:
        return make_card(export, REPO, published=published)

    write_card(export, Path("runs/x/model"))
    local = export / "README.md"
    first = push(None)
    assert kept(first) == ""
    on_hub = push(edit(first, "Written on the Hub."))
    assert kept(on_hub) == "Written on the Hub."
    assert push(on_hub) == on_hub  # and nothing grows
    local.write_text(edit(local.read_text(), "Written here."))
    assert kept(push(first)) == "Written here."
    both = push(on_hub)
    assert kept(both) == "Written on the Hub.\n\nWritten here."
    assert push(both) == both
    local.write_text(edit(local.read_text(), kept(both) + " And more."))
    assert kept(push(both)) == kept(both) + " And more."


@pytest.mark.parametrize("text", ["", "Mine.", "## Mine\n\nWith $ and \\1."])
def test_cards_with_the_markers_of_earlier_versions_keep_their_text(text: str, export: Path) -> None:
    old = (
        "---\nlicense: mit\n---\n# Streets\n\n"
        "<!-- What stands between the next two lines is yours: it survives every push. -->\n"
        f"<!-- pix2pix-hub: keep 3f2a90c1 -->\n{text}\n<!-- pix2pix-hub: end -->\n\n## Citation\n"
    )
    assert kept(make_card(export, REPO, published=old)) == text
    (export / "README.md").write_text(old)
    made = make_card(export, REPO)
    assert kept(made) == text and "pix2pix-hub: keep" not in made and made.count("## Citation") == 1
    (export / "training_config.json").unlink()  # as a converted model, whose card stays
    assert make_card(export, REPO).startswith("---\nlicense: mit\n---\n# Streets\n\n## Citation\n")


def test_the_next_export_of_a_run_takes_over_what_was_written_in_the_last(export: Path, tmp_path: Path) -> None:
    card = export / "README.md"
    write_card(export, Path("runs/x/model"))
    card.write_text(edit(card.read_text(), r"Mind the $ and \1."))
    newer = make_export(tmp_path / "newer" / "model", seed=1)
    write_card(newer, Path("runs/x/model"), previous=card)
    made = (newer / "README.md").read_text()
    assert kept(made) == r"Mind the $ and \1." and "(step 7)" in " ".join(made.split())


def test_a_card_that_was_not_made_here_is_kept_whole(hub: HubServer, export: Path) -> None:
    hub.create(REPO, {"README.md": "---\nlicense: mit\n---\n# My streets\n\nBy hand.\n"})
    push_export(export, REPO)
    made = ModelCard(hub.repo(REPO).read("README.md").decode())
    assert kept(made.content) == "# My streets\n\nBy hand."
    assert made.data.license == "mit" and made.data.library_name == "pix2pix-hub"
    push_export(export, REPO, license="cc-by-4.0")
    assert b"\nlicense: cc-by-4.0\n" in hub.repo(REPO).read("README.md")


def test_a_converted_models_own_card_stays(hub: HubServer, export: Path) -> None:
    for name in ("training_config.json", "metrics.json", "samples.png"):
        (export / name).unlink()
    minimal = make_card(export, REPO)
    ModelCard(minimal).validate()
    assert "## Training" not in minimal and "## Metrics" not in minimal and "None" not in minimal
    own = '---\ntags:\n- converted\n---\n\n# Converted\n\nPix2PixPipeline.from_pretrained("{}")\n'
    (export / "README.md").write_text(own.format("folder"))
    push_export(export, REPO)
    first = hub.repo(REPO).read("README.md").decode()
    assert first.startswith(own.format(REPO)) and kept(first) == ""
    push_export(export, REPO, license="mit")
    second = hub.repo(REPO).read("README.md").decode()
    assert second == first.replace("---\n\n", "license: mit\n---\n\n")
    hub.add_commit(hub.repo(REPO), {"README.md": edit(second, "Mine.")})
    push_export(export, REPO)
    third = hub.repo(REPO).read("README.md").decode()
    assert kept(third) == "Mine." and third.split(MARKER)[0] == second.split(MARKER)[0]


@pytest.mark.parametrize(
    "card",
    [
        "---\na: 1" + "\n" * 120_000,
        "<!-- pix2pix-hub: keep -->\n" * 4000,
        "---\na: " + "[" * 60_000 + "\n---\n",
        "---\n- a\n---\n",
        "x" * 200_000,
        "\ud800",
    ],
)
def test_a_card_of_strangers_costs_seconds_at_most(card: str, export: Path) -> None:
    """What took hours, or ended in a traceback: a card, or a sentence."""
    (export / "README.md").write_bytes(card.encode(errors="surrogatepass"))
    try:
        assert make_card(export, "user/name")
    except UserError as error:
        assert "README.md is no model card" in str(error) or "no card can be made of" in str(error)


def test_a_damaged_file_is_named(export: Path) -> None:
    (export / "metrics.json").write_text("{")
    with pytest.raises(UserError, match="metrics.json is not valid JSON"):
        make_card(export, REPO)
    (export / "metrics.json").write_text(json.dumps([1]))
    with pytest.raises(UserError, match="metrics.json must hold a JSON object"):
        make_card(export, REPO)
