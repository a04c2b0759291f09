"""How commands answer."""

import sys


def say(text: str) -> None:
    """A command's answer, on standard output."""
    sys.stdout.write(text + "\n")
