"""Captions to CLIP token ids: open_clip's tokenizer with a cache of words, and batches cut to their longest caption."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

CACHE_WORDS = 1_000_000


class Tokenizer:
    """Callable like open_clip's tokenizer and giving the same ids, several times faster.

    A word's ids are computed once. ftfy and HTML unescaping are skipped where they cannot change anything:
    printable ASCII without `&`.
    """

    def __init__(self, simple: Any) -> None:
        """Take open_clip's `SimpleTokenizer`, which does the real work and sets the context length."""
        self.simple = simple
        self.context_length: int = simple.context_length
        self._words: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text, without start, end or padding."""
        plain = text.isascii() and text.isprintable() and "&" not in text
        cleaned = text.lower() if plain else self.simple.clean_fn(text)
        return [i for word in cleaned.split() for i in self._word(word)]

    def _word(self, word: str) -> list[int]:
        # The tokenizer's pattern never matches across white space, so a text's ids are those of its words.
        if (known := self._words.get(word)) is not None:
            return known
        simple = self.simple
        pieces = ["".join(simple.byte_encoder[b] for b in piece.encode()) for piece in simple.pat.findall(word)]
        ids = [simple.encoder[part] for piece in pieces for part in simple.bpe(piece).split(" ")]
        if len(self._words) < CACHE_WORDS:
            self._words[word] = ids
        return ids

    def __call__(self, texts: Sequence[str]) -> torch.Tensor:
        """Return int64 ids, (n, context length): start, text, end, zeros; a long text loses its tail."""
        import torch

        start, end, length = self.simple.sot_token_id, self.simple.eot_token_id, self.context_length
        rows = [[start, *self.ids(text)[: length - 2], end] for text in texts]
        return torch.tensor([row + [0] * (length - len(row)) for row in rows], dtype=torch.long).reshape(len(rows), length)


def is_trimmable(model: nn.Module) -> bool:
    """Return whether nothing behind a text's end token can reach its feature.

    True of open_clip's classic CLIP: causal attention, and the feature is read at the end token.
    """
    return getattr(model, "text_pool_type", None) == "argmax" and getattr(model, "attn_mask", None) is not None


def trim(tokens: torch.Tensor) -> torch.Tensor:
    """Cut a batch of ids behind its last end token, which has the highest id of all."""
    return tokens[:, : int(tokens.argmax(dim=1).max()) + 1]


def encode_text(model: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """Return normalised text features, (n, d), of ids that may be trimmed; equal to those of the whole context."""
    length = tokens.shape[1]
    if not is_trimmable(model) or length == model.context_length:
        return model.encode_text(tokens, normalize=True)  # type: ignore[operator]
    from torch.func import functional_call

    # open_clip adds its positions and mask whole; hand it the first rows of both.
    cut = {"positional_embedding": model.positional_embedding[:length], "attn_mask": model.attn_mask[:length, :length]}  # type: ignore[index]
    return functional_call(model, cut, kwargs={"text": tokens})[1]
