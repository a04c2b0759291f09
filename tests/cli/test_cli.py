"""How `pix2pix-hub` ends."""

from __future__ import annotations

import pytest

from pix2pix_hub import cli


def test_a_command_that_is_interrupted_says_so_in_a_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wait() -> None:
        """Wait for somebody's Ctrl-C."""
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "wait", wait)
    assert cli.main(["wait"]) == 130
    assert capsys.readouterr().err.strip() == "stopped"
