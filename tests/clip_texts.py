"""Texts that a tokenizer may get wrong, and open_clip's own tokenizer to compare with."""

from __future__ import annotations

from functools import cache
from typing import Any

from hypothesis import strategies as st

WORDS = st.sampled_from(
    [
        "cat",
        "Cat's",
        "aaa",
        "<start_of_text>",
        "<END_OF_TEXT>",
        "<ſtart_of_text>",
        "&amp;amp;",
        "schÃ¶n",
        "I'LL",
        "ſ's",
        "IMG_1234",
        "\x1f",
        "x" * 41,
    ]
)
TEXTS = st.text(max_size=30) | st.text("ab'sS1-&;<>é ſ\u00a0\n", max_size=30) | st.lists(WORDS, max_size=5).map(" ".join)


@cache
def theirs() -> Any:
    """Return open_clip's tokenizer."""
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()
