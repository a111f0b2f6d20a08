"""How many CLIP tokens captions have: the lengths of what `shards.clip_bpe` encodes, a column at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shards.clip_bpe import cleaned, clip_bpe

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

VERSION = 1
# What is no printable ASCII, and `&`: elsewhere cleaning changes nothing but the case of letters.
_NOT_PLAIN = "[^ -%'-~]"


def clip_tokens(captions: pa.ChunkedArray | pa.Array) -> NDArray[np.int64]:
    """Return the CLIP tokens of each caption, (n,), without start and end; a null has none.

    Raises:
        RunError: open_clip's vocabulary is not installed.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = captions.combine_chunks() if isinstance(captions, pa.ChunkedArray) else captions
    texts = pc.fill_null(texts.cast(pa.large_string()), "")
    odd = pc.match_substring_regex(texts, _NOT_PLAIN)
    if pc.any(odd).as_py():
        # Words split by plain blanks, since Arrow's ASCII functions see no other white space.
        mended = [" ".join(cleaned(text).split()) for text in texts.filter(odd).to_pylist()]
        texts = pc.replace_with_mask(texts, odd, pa.array(mended, pa.large_string()))
    words = pc.ascii_split_whitespace(pc.ascii_lower(pc.ascii_trim_whitespace(texts)))
    encoded = words.flatten().dictionary_encode()
    bpe = clip_bpe()
    counts = np.array([bpe.count(word) for word in encoded.dictionary.to_pylist()], np.int64)
    sums = np.concatenate([[0], np.cumsum(counts[np.asarray(encoded.indices)])]) if len(counts) else np.zeros(1, np.int64)
    ends = np.asarray(words.offsets)
    return sums[ends[1:] - ends[0]] - sums[ends[:-1] - ends[0]]
