"""Predictions by image, kept beside the table of results: ensembles, calibration and paired tests need no model again.

A file holds the answers of one model on one set, one row for each image: `uid` (the first 32 hex digits of the sha256 of the
image's bytes), `label`, `rank` (how many classes stand before the true one) and `logits`, float16. Logits are kept less their
row's largest: softmax does not change, and float16 is finest near 0. `rank` comes from the unrounded scores, so accuracies from
a file equal those in the table.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shards.core import fs
from shards.core.errors import RunError, TornFileError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from eval.datasets.base import Examples

SUFFIX = ".predictions"
UID_DIGITS = 32
MOST_AUTO = 2**28  # bytes of logits that one evaluation keeps unasked: zero-shot on ImageNet's 50,000 test images takes 1e8
_LOWEST = -60_000.0  # float16 ends at -65,504


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model answers on a labelled set.

    Attributes:
        uids: (n,) bytes of 32 hex digits, by the images' content.
        labels: (n,) int64.
        ranks: (n,) int64: 0 where the true class comes first.
        logits: (n, classes) float32: scores less their row's largest.
        meta: the model's, the set's and the protocol's digests, and what else names the run (k, seed).
    """

    uids: np.ndarray
    labels: np.ndarray
    ranks: np.ndarray
    logits: np.ndarray
    meta: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> int:
        """How many classes the logits have."""
        return int(self.logits.shape[1])

    @property
    def digest(self) -> str:
        """sha256 of all that a file holds."""
        content = hashlib.sha256(json.dumps(self.meta, sort_keys=True, ensure_ascii=False).encode())
        for array, kind in ((self.uids, "S32"), (self.labels, "<i8"), (self.ranks, "<i8"), (self.logits, "<f2")):
            content.update(array.astype(kind).tobytes())
        return content.hexdigest()

    def correct(self) -> np.ndarray:
        """Return which images are classified rightly, (n,) bool."""
        return self.ranks == 0


def from_scores(examples: Examples, scores: np.ndarray, meta: dict[str, Any]) -> Predictions:
    """Return the predictions that scores (n, classes) of a set's images are.

    Raises:
        RunError: a score is no finite number.
    """
    import numpy as np

    from eval.metrics import ranks

    if not np.isfinite(scores).all():
        raise RunError("the model's scores are no finite numbers", "a model whose training has not diverged")
    uids = examples.hashes.astype(f"S{UID_DIGITS}")  # astype cuts: the first digits
    wide = scores.astype(np.float64)
    below = np.maximum(wide - wide.max(axis=1, keepdims=True), _LOWEST)
    return Predictions(uids, examples.labels, ranks(scores, examples.labels), below.astype(np.float32), meta)


def folder_of(results: str) -> str:
    """Return the folder that keeps the predictions of a table of results."""
    return results.removesuffix(".jsonl") + SUFFIX


def write(results: str, predictions: Predictions) -> str:
    """Keep predictions beside a table of results, once; return their digest, by which `read` knows them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    digest = predictions.digest
    path = _path(results, digest)
    if fs.exists(path):
        return digest
    flat = pa.array(predictions.logits.astype("float16").reshape(-1))
    columns = {
        "uid": pa.array([uid.decode() for uid in predictions.uids.tolist()], pa.string()),
        "label": pa.array(predictions.labels, pa.int32()),
        "rank": pa.array(predictions.ranks, pa.int32()),
        "logits": pa.FixedSizeListArray.from_arrays(flat, predictions.classes),
    }
    table = pa.table(columns).replace_schema_metadata({"provender": json.dumps(predictions.meta, ensure_ascii=False)})
    fs.make_dirs(folder_of(results))
    with fs.atomic_write(path) as file:
        pq.write_table(table, file, compression="zstd")
    return digest


def read(results: str, digest: str) -> Predictions:
    """Return the predictions of a digest, which a row of the table names.

    Raises:
        UsageError: they are not kept beside this table.
        TornFileError: the file is not what was written.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = _path(results, digest)
    if not fs.exists(path):
        raise UsageError(f"no predictions {digest[:12]} in {folder_of(results)}", advice="run the evaluation again, with --predictions all")
    try:
        with fs.open_read(path) as file:
            table = pq.read_table(file)
        meta = json.loads((table.schema.metadata or {})[b"provender"])
        logits = table["logits"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        labels = table["label"].to_numpy().astype(np.int64)
        predictions = Predictions(
            uids=np.array(table["uid"].to_pylist(), dtype=f"S{UID_DIGITS}"),
            labels=labels,
            ranks=table["rank"].to_numpy().astype(np.int64),
            logits=logits.reshape(len(labels), -1).astype(np.float32),
            meta=meta,
        )
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise TornFileError(f"{path}: no predictions: {str(error)[:200]}", "a whole file, as `evaluate` wrote it") from error
    if predictions.digest != digest:
        raise TornFileError(f"{path}: its content has another digest, {predictions.digest[:12]}", "a whole file, as `evaluate` wrote it")
    return predictions


def aligned(parts: Sequence[Predictions]) -> list[Predictions]:
    """Return the same images of all parts, in one order; an image that stands twice in a set is matched by its occurrence and label.

    Raises:
        UsageError: the parts have no image in common, or unlike numbers of classes.
    """
    import numpy as np

    if len({part.classes for part in parts}) > 1:
        sizes = ", ".join(str(part.classes) for part in parts)
        raise UsageError(f"predictions over {sizes} classes", "predictions on one set of classes")
    keys = [_keys(part) for part in parts]
    common = set(keys[0]).intersection(*keys[1:])
    if not common:
        raise UsageError("predictions without a common image", "predictions on one test set")
    ordered = [key for key in keys[0] if key in common]
    places = [{key: at for at, key in enumerate(part)} for part in keys]
    return [_taken(part, np.array([place[key] for key in ordered])) for part, place in zip(parts, places, strict=True)]


def _keys(part: Predictions) -> list[tuple[bytes, int, int]]:
    """Return what names each image: its uid, its label, and how often both stood before."""
    seen: dict[tuple[bytes, int], int] = {}
    keys = []
    for uid, label in zip(part.uids.tolist(), part.labels.tolist(), strict=True):
        occurrence = seen.get((uid, label), 0)
        seen[uid, label] = occurrence + 1
        keys.append((uid, label, occurrence))
    return keys


def _taken(part: Predictions, positions: np.ndarray) -> Predictions:
    return Predictions(part.uids[positions], part.labels[positions], part.ranks[positions], part.logits[positions], part.meta)


def _path(results: str, digest: str) -> str:
    return fs.join(folder_of(results), f"{digest[:UID_DIGITS]}.parquet")
