"""Token ids and trimmed text features: identical to open_clip's."""

from __future__ import annotations

import random
import string

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from train.model import build_model, build_tokenizer
from train.text import Tokenizer, encode_text, is_trimmable, trim

ODD = [
    "",
    " ",
    "a",
    "A  PHOTO\tof\na Cat's  dog, they'll won't 've 42nd 3.14!!! (really)",
    "fish &amp; chips &amp;amp; &lt;b&gt; R&D &copy",
    "caf\u00e9 na\u00efve \u65e5\u672c\u8a9e \U0001f600 \u00c4\u00d6\u00dc \u0130stanbul \u03a3\u0391\u03a3",
    "mojibake: caf\u00c3\u00a9 \u00e2\u20ac\u0153quoted\u00e2\u20ac\u009d",
    "control \x00\x07 and \x1b[31mred\x1b[0m, \x7f, \x1c file separator",
    "line\r\nbreaks\rhere\u2028and\u2029there",
    "<start_of_text> and <END_OF_TEXT> inside",
    "full\uff37width \ufb01 ligature \u00a0 no-break",
    "''''''s 's'S 'RE", "x" * 300, "word " * 200, "1234567890 " * 20, "____--__^^~~``|\\",
]  # fmt: skip


@pytest.fixture(scope="module")
def ours() -> Tokenizer:
    return build_tokenizer("RN50")


def theirs(texts: list[str]) -> torch.Tensor:
    import open_clip

    return open_clip.tokenize(texts)


def test_odd_texts(ours: Tokenizer) -> None:
    for text in ODD:
        assert torch.equal(ours([text]), theirs([text])), repr(text)
    assert torch.equal(ours(ODD), theirs(ODD))
    assert ours([]).shape == (0, 77)


def test_thousands_of_captions_twice(ours: Tokenizer) -> None:
    """Twice, so that the second time every word comes from the cache."""
    draw = random.Random(0)
    letters = string.ascii_letters * 3 + string.digits + string.punctuation
    words = ["".join(draw.choices(letters, k=draw.randint(1, 9))) for _ in range(1500)]
    captions = [" ".join(draw.choices(words, k=draw.randint(0, 40))) for _ in range(2000)]
    expected = theirs(captions)
    assert torch.equal(ours(captions), expected)
    assert torch.equal(ours(captions), expected)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=60), max_size=4))
def test_any_text(texts: list[str]) -> None:
    tokenizer = build_tokenizer_once()
    assert torch.equal(tokenizer(texts), theirs(texts).reshape(len(texts), 77))


_ONCE: list[Tokenizer] = []


def build_tokenizer_once() -> Tokenizer:
    if not _ONCE:
        _ONCE.append(build_tokenizer("RN50"))
    return _ONCE[0]


def test_a_short_context_cuts_as_open_clip_does() -> None:
    import open_clip

    tokenizer = build_tokenizer("tiny-rn-32")
    assert tokenizer.context_length < 77
    assert torch.equal(tokenizer(ODD), open_clip.get_tokenizer("tiny-rn-32")(ODD))


@pytest.mark.parametrize("name", ["tiny-rn-32", "tiny-vit-32"])
def test_trimmed_text_has_the_features_of_the_whole_context(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(name).eval()
    tokens = build_tokenizer(name)(["a red circle", "a much longer caption about a small blue square", ""])
    cut = trim(tokens)
    assert is_trimmable(model)
    assert cut.shape[1] == int(tokens.argmax(1).max()) + 1 < tokens.shape[1]
    with torch.no_grad():
        torch.testing.assert_close(encode_text(model, cut), model.encode_text(tokens, normalize=True), rtol=0, atol=1e-6)
        assert torch.equal(encode_text(model, tokens), model.encode_text(tokens, normalize=True))


def test_trimmed_text_has_the_gradients_of_the_whole_context() -> None:
    torch.manual_seed(0)
    model = build_model("tiny-rn-32").double()
    tokens = build_tokenizer("tiny-rn-32")(["a red circle", "a small blue square"])
    weight = torch.randn(2, 128, dtype=torch.float64)
    (encode_text(model, trim(tokens)) * weight).sum().backward()
    trimmed = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    (model.encode_text(tokens, normalize=True) * weight).sum().backward()
    whole = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert trimmed.keys() == whole.keys()
    assert "positional_embedding" in whole
    for name, gradient in whole.items():
        torch.testing.assert_close(trimmed[name], gradient, rtol=1e-9, atol=1e-9, msg=name)
