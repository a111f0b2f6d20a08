"""Token ids that a loader takes from a layer, on the real captions: those of open_clip's tokenizer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import real_captions

from curate.tokens import encoded_captions
from train.data.columns import IdsColumn
from train.data.text import Tokenizer


@pytest.mark.parametrize("length", [77, 24])
def test_ids_of_a_layer_are_open_clips(realdata: Path, length: int) -> None:
    import open_clip

    captions = real_captions.captions(realdata)[::3]
    chosen = np.random.default_rng(length).permutation(len(captions))
    ids = IdsColumn(encoded_captions(list(captions)).take(pa.array(chosen)))
    shuffled = [captions[number] for number in chosen]
    out = np.full((len(chosen), length), -1, np.int32)
    Tokenizer(length).fill_known([ids[row] for row in range(len(chosen))], shuffled, out)
    expected = open_clip.SimpleTokenizer(context_length=length)(shuffled)
    assert np.array_equal(out, expected.numpy())
    assert sum(len(ids[row] or b"") > 2 * length for row in range(len(chosen))) > 10 or length == 77
