"""Weights of samples: a column of the sidecars or of a layer, by which training weighs each sample's loss."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from shards import layers
from shards.core import fs
from shards.core.errors import UsageError, closest
from shards.manifest import Manifest, ShardEntry
from shards.reader import Shard

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

LARGEST = (2 - 2.0**-23) * 2.0**127  # float32's: losses are weighed in it
ALLOWED = "a finite number from 0 on"
THREADS = 16  # as the preflight's: a read of a remote store waits some 50 ms


def is_weight(value: float) -> bool:
    """Return whether a number can be a weight: finite as a float32, and not negative."""
    return 0 <= value <= LARGEST


def in_words(value: float) -> str:
    """Return such as `weight -1`."""
    return "no number (null or NaN)" if math.isnan(value) else f"weight {value:g}"


def numbers_of(column: pa.Array | pa.ChunkedArray, where: str) -> NDArray[np.float64]:
    """Return a column as float64, null as NaN.

    Args:
        where: how an error names the column.

    Raises:
        UsageError: it holds something else than numbers.
    """
    import numpy as np
    import pyarrow as pa

    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind)):
        raise UsageError(f"{where} holds {kind}", "numbers")
    # safe=False: whole numbers beyond 2⁵³ are rounded.
    return np.asarray(column.cast(pa.float64(), safe=False).fill_null(float("nan")), np.float64)


def no_column(manifest: Manifest, entry: ShardEntry, name: str) -> UsageError:
    """Return the refusal of a set without a column of weights; it names the columns that hold numbers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = layers.columns_of(manifest.folder_of(entry))
    path = manifest.path_of(entry, ".parquet")
    if entry.sidecar_sha256 and fs.exists(path):
        with fs.open_read(path) as file:
            kinds |= {field.name: field.type for field in pq.read_schema(file)}
    known = sorted(name for name, kind in kinds.items() if pa.types.is_integer(kind) or pa.types.is_floating(kind))
    return UsageError(f"{manifest.folder}: no column {name!r} with weights", ", ".join(known) or "none holds numbers", closest(name, known))


def check_weights(manifest: Manifest, name: str) -> None:
    """Look at the weights of all samples in use.

    The column itself is read, for parquet's statistics pass over NaN: 1 ms a shard of 10,000 samples.

    Args:
        name: a column of the sidecars or of a layer (`LAYER.column`).

    Raises:
        UsageError: there is no such column, a weight is null, no finite number or negative, or all are 0.
    """
    used = [entry for entry in manifest.shards if entry.used]
    with ThreadPoolExecutor(THREADS) as pool:
        largest = list(pool.map(lambda entry: _largest(manifest, entry, name), used))
    if not any(largest):
        raise UsageError(f"{manifest.folder}: the weights in {name!r} are all 0", "at least one above 0")


def _largest(manifest: Manifest, entry: ShardEntry, name: str) -> float:
    """Return the largest weight of a shard's samples in use."""
    with Shard(manifest, entry) as shard:
        table = shard.sidecar([name])
        if name not in table.column_names:
            raise no_column(manifest, entry, name)
        values = numbers_of(table[name], f"{manifest.folder}: the column {name!r}")
        wrong = ~((values >= 0) & (values <= LARGEST))
        if wrong.any():
            row = int(wrong.argmax())
            names = shard.sidecar(["key"])
            key = str(names["key"][row]) if names.num_columns else shard.key(row)
            more = f" (and {int(wrong.sum()) - 1:,} more in this shard)" if wrong.sum() > 1 else ""
            place = fs.printable(f"{entry.path}: {key}")
            raise UsageError(f"{manifest.folder}: {place}: {in_words(values[row])} in {name!r}{more}", ALLOWED)
    return float(values.max())
