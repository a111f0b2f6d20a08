"""The columns and words that cross rooms, spelt once. A filter's own columns are `<filter>.<column>`."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

DECISIONS = ("kept", "holdout", "spare", "dropped")

# The closed list of reasons that no filter owns. A filter's reason is its own name.
REASONS = {
    "removed": "taken down on request, or a copy of such a picture",
    "duplicate_id": "the source gives this id twice; the first one stands",
    "not_selected": "left out by the source's own options (a language, a list of ids)",
    "image_missing": "no image for this record in the pool",
    "failed_to_download": "the URL gave no image (fetch status)",
    "failed_to_resize": "the fetched bytes could not be decoded or resized (fetch status)",
    "lost": "the fetch lost this row",
    "undecodable": "the image does not decode to its last row",
    "unsupported": "the image is of a kind that shards cannot hold",
    "too_large": "the image has more pixels or bytes than is safe to decode",
    "worker_killed": "the sample killed or hung the worker that measured it",
    "torn_input": "the input file is cut off at this record",
    "bad_record": "the record is not of its source's format",
    "caption_missing": "no caption, or none left after cleaning",
    "exact_duplicate": "the same image bytes as a preferred sample",
    "placeholder": "a picture served for many unlike captions (such as “image removed”)",
    "near_test_image": "near an image of a downstream set that must stay out",
    "near_duplicate": "within the pHash radius of a kept, preferred sample",
    "duplicate_caption": "the same caption as a preferred sample, letter case and punctuation aside",
    "semantic_duplicate": "says the same as a preferred sample, by the embeddings",
}

# The reasons that lie in other samples or sets: decided after the filters, in this order.
RELATIVE_REASONS = ("exact_duplicate", "placeholder", "near_test_image", "near_duplicate", "duplicate_caption", "semantic_duplicate")

# What a sample is: its words and its picture. The measured table and the sidecar hold these columns alike.
CONTENT = (
    ("url", "string"),
    ("caption", "string"),
    ("caption_raw", "string"),
    ("captions", "list<string>"),
    ("width", "int32"),
    ("height", "int32"),
    ("original_width", "int32"),
    ("original_height", "int32"),
    ("original_format", "string"),
    ("bytes", "int64"),
    ("sha256", "string"),
    ("original_sha256", "string"),
)

SIDECAR = (
    ("key", "string"),
    ("uid", "string"),
    ("source", "string"),
    ("source_id", "string"),
    *CONTENT,
    ("phash", "string"),
    ("information", "double"),
    ("rank", "int64"),
    ("class", "int32"),
    ("licence", "string"),
)

LEDGER = (
    ("uid", "string"),
    ("source", "string"),
    ("source_id", "string"),
    ("input", "string"),
    ("row", "int64"),
    ("decision", "string"),
    ("reason", "string"),
    ("detail", "string"),
    ("duplicate_of", "string"),
    ("rank", "int64"),
    ("shard", "string"),
    ("caption_raw", "string"),
)


def _whole(least: int, below: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, Integral) and not isinstance(value, bool) and least <= int(value) < below


# The kinds of columns, and what of Python's values fits each; None fits all.
KINDS: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "int32": _whole(-(2**31), 2**31),
    "int64": _whole(-(2**63), 2**63),
    "uint64": _whole(0, 2**64),
    "double": lambda value: isinstance(value, Real) and not isinstance(value, bool),
    "bool": lambda value: isinstance(value, bool),
    "list<string>": lambda value: isinstance(value, list | tuple) and all(isinstance(element, str) for element in value),
}


def arrow_schema(columns: tuple[tuple[str, str], ...]) -> pa.Schema:
    """Return the pyarrow schema of `(name, type)` pairs."""
    import pyarrow as pa

    kinds = {
        "string": pa.string(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "uint64": pa.uint64(),
        "double": pa.float64(),
        "bool": pa.bool_(),
        "list<string>": pa.list_(pa.string()),
    }
    return pa.schema([(name, kinds[kind]) for name, kind in columns])
