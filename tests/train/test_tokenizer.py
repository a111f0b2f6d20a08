"""Token ids and trimmed text features: identical to open_clip's."""

from __future__ import annotations

import csv
import gzip
import json
import os
import random
import string
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.core.errors import UsageError
from train.data.text import LENGTH_STEP, Tokenizer, encode_text, is_trimmable, length_groups, trim
from train.models.load import build_model, build_tokenizer

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


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint16])
def test_ids_go_into_an_array_of_any_integers(ours: Tokenizer, kind: type) -> None:
    out = np.full((len(ODD), 77), 9, kind)
    ours.fill(ODD, out)
    assert out.tolist() == theirs(ODD).tolist()
    assert ours(ODD).dtype == torch.int64


def test_an_array_of_another_shape_is_refused(ours: Tokenizer) -> None:
    for shape in ((1, 77), (2, 76), (2, 78)):
        with pytest.raises(UsageError, match="for ids"):
            ours.fill(["a", "b"], np.empty(shape, np.int32))
    with pytest.raises(UsageError, match="context length 1"):
        Tokenizer(1)


def test_filling_imports_no_torch() -> None:
    code = (
        "import sys, numpy; from train.data.text import Tokenizer; out = numpy.empty((1, 9), numpy.int32); "
        "Tokenizer(9).fill(['a &amp; ö'], out); print(out.tolist(), {'torch', 'open_clip'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == f"{Tokenizer(9)(['a & ö']).tolist()} set()\n"


def test_real_captions_and_naughty_strings(ours: Tokenizer) -> None:
    """All captions of the real sample, and those texts that are known to break things."""
    checkout = Path(__file__).resolve().parents[2]
    realdata = Path(os.environ.get("PROVENDER_REALDATA") or checkout.parent / "shared" / "realdata")
    if not (realdata / "README.md").is_file():
        pytest.skip(f"no real-data sample at {realdata}; PROVENDER_REALDATA names another place")
    with gzip.open(realdata / "captions/captions.tsv.gz", "rt", encoding="utf-8", newline="\n") as file:
        captions = [row["caption"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    captions += json.loads((realdata / "text/naughty_strings.json").read_text("utf-8"))
    assert len(captions) > 11_000
    assert torch.equal(ours(captions), theirs(captions))


def lengths_of(tokens: torch.Tensor) -> list[int]:
    """Return where the first end token of each row stands, + 1: plain loops."""
    return [row.index(49407) + 1 for row in tokens.tolist()]


def least_ids(lengths: list[int], groups: int) -> int:
    """Return the fewest ids that any cut of the sorted lengths into `groups` or fewer holds: every cut is tried."""
    ordered = sorted(lengths)
    if groups == 1 or len(ordered) < 2:
        return len(ordered) * ordered[-1]
    totals = [len(ordered) * ordered[-1]]
    totals += [at * ordered[at - 1] + least_ids(ordered[at:], groups - 1) for at in range(1, len(ordered))]
    return min(totals)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 90), min_size=1, max_size=9), st.integers(1, 4))
def test_groups_hold_each_row_once_and_the_fewest_ids(words: list[int], groups: int) -> None:
    tokens = Tokenizer(77)(["1 " * n for n in words])
    parts = length_groups(tokens, groups)
    assert len(parts) <= groups
    assert sorted(row for rows, _ in parts for row in rows.tolist()) == list(range(len(words)))
    rounded = [min(-(-n // LENGTH_STEP) * LENGTH_STEP, 77) for n in lengths_of(tokens)]
    for rows, ids in parts:
        assert ids.shape[1] == max(rounded[row] for row in rows.tolist())
        assert torch.equal(ids, tokens[rows, : ids.shape[1]])
    assert sum(ids.numel() for _, ids in parts) == least_ids(rounded, groups)


def test_no_group_is_refused() -> None:
    with pytest.raises(UsageError, match="0 groups"):
        length_groups(Tokenizer(77)(["a"]), 0)
    assert length_groups(Tokenizer(77)([]), 2) == []


CAPTIONS = ["a red circle", "a much longer caption about a small blue square on a wooden table", "", "word " * 30, "a cat", "two dogs run"]


@pytest.mark.parametrize("name", ["tiny-rn-32", "tiny-vit-32"])
@pytest.mark.parametrize("groups", [1, 2, 3, 8])
def test_text_in_groups_has_the_features_of_the_whole_context(name: str, groups: int) -> None:
    torch.manual_seed(0)
    model = build_model(name).eval()
    tokens = build_tokenizer(name)(CAPTIONS)
    with torch.no_grad():
        expected = model.encode_text(tokens, normalize=True)
        torch.testing.assert_close(encode_text(model, tokens, groups), expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(encode_text(model, trim(tokens), groups), expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(encode_text(model, tokens[:1], groups), expected[:1], rtol=0, atol=1e-6)


def test_groups_do_not_help_a_model_whose_padding_counts() -> None:
    """SigLIP's text tower reads the last position, with no causal mask: the whole context is encoded."""
    import open_clip

    torch.manual_seed(0)
    text = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1, "no_causal_mask": True, "pool_type": "last"}
    vision = {"image_size": 32, "layers": 1, "width": 16, "head_width": 16, "patch_size": 16}
    model = open_clip.CustomTextCLIP(8, vision, text).eval()
    tokens = Tokenizer(16)(CAPTIONS)
    assert not is_trimmable(model)
    with torch.no_grad():
        assert torch.equal(encode_text(model, tokens, 3), model.encode_text(tokens, normalize=True))


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


@pytest.mark.parametrize("groups", [1, 3])
def test_trimmed_text_has_the_gradients_of_the_whole_context(groups: int) -> None:
    torch.manual_seed(0)
    model = build_model("tiny-rn-32").double()
    tokens = build_tokenizer("tiny-rn-32")(CAPTIONS)
    weight = torch.randn(len(CAPTIONS), 128, dtype=torch.float64)
    (encode_text(model, trim(tokens), groups) * weight).sum().backward()
    trimmed = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    (model.encode_text(tokens, normalize=True) * weight).sum().backward()
    whole = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert trimmed.keys() == whole.keys()
    assert "positional_embedding" in whole
    for name, gradient in whole.items():
        torch.testing.assert_close(trimmed[name], gradient, rtol=1e-9, atol=1e-9, msg=name)
