"""The part of a model card that a person wrote: it survives every push.

    <!-- pix2pix-hub: keep 3f2a90c1 -->
    Whatever stands here stays.
    <!-- pix2pix-hub: end -->

The opening marker carries a digest of the text as it was pushed. With it a later push can tell on which side, here or
on the Hub, the text was changed since.
"""

from __future__ import annotations

import hashlib
import re

KEPT = re.compile(  # up to the next marker: linear, whatever the text
    r"<!-- pix2pix-hub: keep ?(?P<digest>\w*) -->\n"
    r"(?P<text>(?:(?!<!-- pix2pix-hub: keep).)*?)\n?<!-- pix2pix-hub: end -->",
    re.DOTALL,
)
FRONT_MATTER = re.compile(r"\A\s*---\n.*?\n---\s*\n", re.DOTALL)


def kept_block(text: str) -> str:
    """`text` between the markers."""
    return f"<!-- pix2pix-hub: keep {_digest(text)} -->\n{text}\n<!-- pix2pix-hub: end -->"


def kept_text(local: str | None, published: str | None) -> str:
    """What the next card keeps of the local one and of the published one (None: there is none).

    The text of the side that changed since the last push; where both did, the published one and the local one below
    it. A published card without markers was not made here: all of it is kept.
    """
    here = _text(local)
    if published is None:
        return here
    found = KEPT.search(published)
    if found is None:
        there, pushed = FRONT_MATTER.sub("", published).strip(), ""
    else:
        there, pushed = found["text"].strip(), found["digest"]
    if not here or here == there or _digest(here) == pushed:
        return there
    if not there or _digest(there) == pushed:
        return here
    return f"{there}\n\n{here}"


def with_kept_text(card: str, text: str) -> str:
    """A card that was written elsewhere, with `text` in its kept part (at its end, where it has none)."""
    if KEPT.search(card) is not None:
        return KEPT.sub(lambda _: kept_block(text), card, count=1)
    return f"{card.rstrip()}\n\n{kept_block(text)}\n"


def front_matter(card: str) -> str:
    """The block of metadata that a card begins with."""
    found = FRONT_MATTER.match(card)
    return found.group() if found else ""


def _text(card: str | None) -> str:
    found = KEPT.search(card) if card is not None else None
    return found["text"].strip() if found else ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
