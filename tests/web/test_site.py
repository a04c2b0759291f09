"""What is refused before anything is written, and what a folder holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_exports import GRAY16, write_tiny_export

from pix2pix_hub.cli import main
from pix2pix_hub.image.format import PixelFormat
from pix2pix_hub.web.site import CDN, RUNTIME, RUNTIME_VERSION, integrity

pytest.importorskip("onnxscript", reason="pip install onnx onnxscript onnxruntime")


def test_the_hashes_that_the_page_asks_for_are_those_of_the_npm_package(vendor: Path) -> None:
    """Which is what cdn.jsdelivr.net serves."""
    assert json.loads((vendor / "package.json").read_text())["version"] == RUNTIME_VERSION
    assert f"/onnxruntime-web@{RUNTIME_VERSION}/dist/" in CDN
    assert {name: integrity(vendor / "dist" / name) for name in RUNTIME} == RUNTIME


def test_what_cannot_be_written_is_refused_and_nothing_is_touched(
    tmp_path: Path, vendor: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_tiny_export(tmp_path / "model")
    bands = write_tiny_export(tmp_path / "bands", PixelFormat("channels", 5), GRAY16)
    (mine := tmp_path / "mine").mkdir()
    (mine / "thesis.txt").write_text("years of work")
    (site := tmp_path / "site").mkdir()
    (site / "site.json").write_text(json.dumps({"files": ["index.html"]}))
    (site / "CNAME").write_text("mine")
    (other := tmp_path / "package").mkdir()
    (other / "package.json").write_text('{"name": "onnxruntime-web", "version": "1.2.3"}')
    for words, text in (
        ([model, "--output", mine], "holds thesis.txt, which `pix2pix-hub web` did not write"),
        ([model, "--output", site], "holds CNAME, which"),
        ([model, "--output", mine / "thesis.txt"], "is a file, which"),
        ([model, "--output", tmp_path / "new", "--vendor", other], "is onnxruntime-web 1.2.3, whose dist/ort.wasm.min"),
        ([model, "--output", tmp_path / "new", "--vendor", mine], "is no package, whose"),
        ([bands, "--output", tmp_path / "new", "--vendor", vendor], "bands takes 8-bit 5-channel; a browser has gray"),
        ([tmp_path / "nowhere", "--output", tmp_path / "new"], "is neither a folder nor a repository id"),
    ):
        assert main(["web", *map(str, words)]) == 2
        assert text in capsys.readouterr().err
    assert not (tmp_path / "new").exists() and (mine / "thesis.txt").read_text() == "years of work"
    assert {path.name for path in site.iterdir()} == {"site.json", "CNAME"}
