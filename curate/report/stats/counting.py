"""Count samples: from a table of rows to a table of statistics."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

from curate.report import clip_tokens, concepts, readability, wordcount
from curate.report.stats.table import histogram, ordered, schema, table, three_digits

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from curate.report.wordcount import Counts

COUNTED = ("source", "caption", "width", "height", "bytes", "original_format", "information")
VERSION = 3
SPELLED = 500  # characters of a repeated caption


@cache
def version() -> str:
    """Return what tells statistics that were counted otherwise: the versions of all definitions, and the lists of concepts."""
    parts = {
        "words": wordcount.VERSION,
        "CLIP tokens": clip_tokens.VERSION,
        "readability": readability.VERSION,
        "concepts": concepts.digest(concepts.default_lists())[:16],
        "Unicode": unicodedata.unidata_version,
    }
    return ", ".join([str(VERSION), *(f"{name} {what}" for name, what in parts.items())])


def count_rows(rows: pa.Table) -> pa.Table:
    """Count samples: the rows of a sidecar, or of any table with some of the columns COUNTED; nulls are counted nowhere.

    Returns rows in the order of `ordered`, so that equal samples in any order have equal statistics.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    n, parts = rows.num_rows, [schema().empty_table()]
    sources = pc.fill_null(rows["source"], "") if "source" in rows.column_names else pa.chunked_array([pa.repeat("", n)])
    for source in pc.unique(sources):
        own = rows.filter(pc.equal(sources, source))
        parts += [part.set_column(0, "source", pa.repeat(source, part.num_rows)) for part in _of_source(own)]
    return ordered(pa.concat_tables(parts))


def _of_source(rows: pa.Table) -> Iterator[pa.Table]:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    names = rows.column_names
    yield table("samples", count=[rows.num_rows])
    if "caption" in names:
        yield from _of_captions(rows["caption"].drop_null())
    for name in ("width", "height"):
        if name in names:
            yield histogram(name, rows[name].cast(pa.float64()))
    if "width" in names and "height" in names:
        known = rows.filter(pc.and_(pc.greater(rows["width"], 0), pc.greater(rows["height"], 0)))
        shorter = pc.min_element_wise(known["width"], known["height"])
        yield histogram("shorter_side", shorter.cast(pa.float64()))
        yield histogram("aspect", pa.array(three_digits(np.asarray(known["width"], np.float64) / np.asarray(known["height"]))))
    if "bytes" in names:
        yield histogram("bytes", pa.array(three_digits(np.asarray(rows["bytes"].drop_null(), np.float64))))
    if "information" in names:
        yield histogram("information", pa.array(np.round(np.asarray(rows["information"].drop_null(), np.float64), 1)))
    if "original_format" in names:
        found = rows["original_format"].drop_null().value_counts()
        yield table("format", text=found.field("values"), count=found.field("counts"))


def _of_captions(captions: pa.ChunkedArray) -> Iterator[pa.Table]:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    found = wordcount.count(captions)
    words = pa.array(found.words, pa.string())
    yield table("word", text=words, count=found.count, captions=found.captions)
    first, second = words.take(pa.array(found.first)), words.take(pa.array(found.second))
    yield table("bigram", text=pc.binary_join_element_wise(first, second, " "), count=found.pairs)
    yield mentioned(found, concepts.default_lists())
    yield histogram("words", pa.array(found.lengths).cast(pa.float64()))
    yield histogram("characters", pc.utf8_length(captions).cast(pa.float64()))
    yield histogram("clip_tokens", pa.array(clip_tokens.clip_tokens(captions)).cast(pa.float64()))
    some = found.lengths > 0
    yield histogram("repetition", pa.array(np.round((found.lengths - found.distinct)[some] / found.lengths[some], 2)))
    classes = np.bincount(readability.readability(captions, found.lengths), minlength=len(readability.CLASSES))
    there = np.flatnonzero(classes)
    yield table("readability", text=[readability.CLASSES[i] for i in there], count=classes[there])
    yield _repeated(captions, hashes(captions, found.said))


def mentioned(counts: Counts, lists: tuple[concepts.ConceptList, ...]) -> pa.Table:
    """Return the mentions of the classes of some lists."""
    import pyarrow.compute as pc

    found = concepts.mentions(counts, lists)
    names = pc.binary_join_element_wise(found["set"], found["class"], "\t")
    return table("concept", text=names.combine_chunks(), count=found["count"], captions=found["captions"])


def count_concepts(rows: pa.Table, lists: tuple[concepts.ConceptList, ...]) -> pa.Table:
    """Count the mentions of the classes of some lists in the captions of samples: the rows of a sidecar, as `count_rows` does."""
    import pyarrow as pa
    import pyarrow.compute as pc

    parts = [schema().empty_table()]
    sources = pc.fill_null(rows["source"], "")
    for source in pc.unique(sources):
        captions = rows["caption"].filter(pc.equal(sources, source)).drop_null()
        part = mentioned(wordcount.count(captions), lists)
        parts.append(part.set_column(0, "source", pa.repeat(source, part.num_rows)))
    return ordered(pa.concat_tables(parts))


def hashes(captions: pa.ChunkedArray, said: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return a hash of 52 bits of what each caption says: of its words in order, of all its text where it has no word."""
    import numpy as np
    import pyarrow as pa
    import xxhash

    wordless = np.flatnonzero(said == 0)
    found = (said >> np.uint64(12)).astype(np.int64)
    found[wordless] = [xxhash.xxh3_64_intdigest(text.encode()) >> 12 for text in captions.take(pa.array(wordless)).to_pylist()]
    return found


def spellings(rows: pa.Table, source: str, wanted: set[int]) -> dict[int, str]:
    """Return how some captions of a source are spelled in the rows of a shard, by their hashes: the first of the alphabet."""
    import pyarrow.compute as pc

    captions = rows["caption"].filter(pc.equal(pc.fill_null(rows["source"], ""), source)).drop_null()
    found: dict[int, str] = {}
    for key, text in zip(hashes(captions, wordcount.count(captions).said).tolist(), captions.to_pylist(), strict=True):
        if key in wanted:
            found[key] = min(text[:SPELLED], found.get(key, text[:SPELLED]))
    return found


def _repeated(captions: pa.ChunkedArray, keys: NDArray[np.int64]) -> pa.Table:
    """Return how often each caption comes, with a spelling of those that come twice: the first of the alphabet."""
    import numpy as np
    import pyarrow as pa

    values, place, count = np.unique(keys, return_inverse=True, return_counts=True)
    several = np.flatnonzero(count[place] > 1)
    spelled: dict[int, str] = {}
    for key, text in zip(keys[several].tolist(), captions.take(pa.array(several)).to_pylist(), strict=True):
        spelled[key] = min(text, spelled.get(key, text))
    texts = pa.array([text[:SPELLED] if (text := spelled.get(key)) else text for key in values.tolist()], pa.string())
    return table("caption", text=texts, value=values.astype(np.float64), count=count)
