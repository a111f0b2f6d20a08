"""Whether the samples of a set have the captions and the labels that a training asks for, found without opening an image.

Presence and emptiness of `.txt` and `.cls` come from the index for every sample; what stands in them is looked at in up to
`LOOKED_AT` samples spread over the shards. Columns of sidecars are judged by their parquet statistics where these suffice.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shards import layers
from shards.core import fs
from shards.core.errors import UsageError, closest
from shards.manifest import Manifest, ShardEntry
from shards.member import check_member
from shards.reader import Shard
from shards.scan import Scan, scan
from shards.tables.notes import noting
from shards.tables.text import NOT_UTF8
from shards.tables.values import caption_in

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

LOOKED_AT = 256  # captions, and labels in .cls members
SHARDS_LOOKED_AT = 32  # each costs a parquet column or some reads; 256 shards on a remote store took seconds
MOST_TEXT = 4096  # bytes read of a caption
CLASS = "class"
_NEEDS_NONE = "train simclr, byol and supervised need no captions"
CAPTION_KEYS = ("caption", "text", "title", "captions")  # what `curate build-shards --source webdataset` reads of a .json


@dataclass(frozen=True)
class Part:
    """One shard of a set; `scan` where it has no sidecar."""

    entry: ShardEntry
    scan: Scan | None


@dataclass
class Counts:
    """Samples without an annotation, with an empty one, and of those looked at with a blank one and one that is no UTF-8.

    `where` has the first of each.
    """

    without: int = 0
    empty: int = 0
    blank: int = 0
    not_utf8: int = 0
    looked_at: int = 0
    where: dict[str, str] = field(default_factory=dict)


def check_captions(manifest: Manifest, parts: Sequence[Part], layer_names: Sequence[str] = ()) -> Counts:
    """Count samples without a caption.

    Args:
        manifest: the set.
        parts: its shards with samples in use.
        layer_names: layers whose captions count, too.

    Raises:
        UsageError: no sample has a caption, all are empty, all that are looked at are blank, or there is no such layer.
    """
    import numpy as np

    counts = Counts()
    candidates: list[NDArray[np.int64]] = []
    with_text = 0
    for part in parts:
        if part.scan is None:
            candidates.append(np.arange(part.entry.used))
            continue
        in_layer = _in_layers(manifest, part.entry, layer_names)
        absent = ~part.scan.text & ~in_layer
        empty = part.scan.empty_text & ~in_layer
        counts.without += _count(counts, "without", part, manifest, absent)
        counts.empty += _count(counts, "empty", part, manifest, empty)
        with_text += int((~absent).sum())
        candidates.append(np.flatnonzero(~absent & ~empty))
    if not any(len(rows) for rows in candidates):
        if with_text:
            found = f"{manifest.folder}: the .txt of all {with_text:,} samples that have one are empty"
            raise UsageError(found, "captions", _NEEDS_NONE)
        raise _no_caption(manifest, parts)
    for number, rows in _spread(candidates):
        part = parts[number]
        with noting() as tally:
            texts = _captions_of(manifest, part, rows, layer_names)
        if NOT_UTF8 in tally.counts:
            counts.not_utf8 += tally.counts[NOT_UTF8]
            counts.where.setdefault("not_utf8", f"{fs.printable(part.entry.path)}: {tally.examples[NOT_UTF8]}")
        for row, text in zip(rows, texts, strict=True):
            counts.looked_at += 1
            if not text.strip():
                counts.blank += 1
                counts.where.setdefault("blank", _place(manifest, part, row))
    if counts.blank == counts.looked_at:
        found = f"{manifest.folder}: all {counts.looked_at} captions looked at are blank or absent, such as {counts.where['blank']}"
        raise UsageError(found, "captions", _NEEDS_NONE)
    return counts


def check_labels(manifest: Manifest, parts: Sequence[Part], name: str, classes: int = 0) -> Counts:
    """Count samples without a label.

    Args:
        manifest: the set.
        parts: its shards with samples in use.
        name: a column of the sidecars or of a layer (`LAYER.column`); `class` also stands for `.cls` members.
        classes: how many classes there are, 0 where that is not known. A label of −1 or null is none.

    Raises:
        UsageError: there is no such column, no sample has a label, or one is not from 0 to `classes` − 1.
    """
    import numpy as np

    counts = Counts()
    samples = sum(part.entry.used for part in parts)
    members: list[tuple[Part, Scan]] = []
    for part in parts:
        column = _label_column(manifest, part.entry, name, classes)
        if column is None:
            found = part.scan or scan(manifest, part.entry)
            members.append((part, found))
            counts.without += _count(counts, "without", part, manifest, ~found.label)
        else:
            absent = _check_column(manifest, part, name, column, classes)
            counts.without += _count(counts, "without", part, manifest, absent)
    if counts.without == samples:
        kinds = members_of(parts)
        found_members = f"; members are {kinds}" if kinds else ""
        raise UsageError(f"{manifest.folder}: no sample has a label in {name!r}{found_members}", "a class number from 0 on")
    for number, rows in _spread([np.flatnonzero(found.label) for _, found in members]):
        part, found = members[number]
        for row in rows:
            counts.looked_at += 1
            _check_class_member(manifest, part, found, row, classes)
    return counts


def _count(counts: Counts, kind: str, part: Part, manifest: Manifest, rows: NDArray[np.bool_]) -> int:
    """Return how many rows are set; the first one ever is where to look."""
    import numpy as np

    number = int(np.count_nonzero(rows))
    if number and kind not in counts.where:
        counts.where[kind] = _place(manifest, part, int(np.argmax(rows)))
    return number


def _place(manifest: Manifest, part: Part, row: int) -> str:
    """Return such as `00000.tar: 0003`: where a sample in use lies."""
    if part.scan is not None:
        key = part.scan.group(row)[0].key
    else:
        with Shard(manifest, part.entry) as shard:
            key = str(shard.sidecar(["key"])["key"][row])
    return fs.printable(f"{part.entry.path}: {key}")


def _spread(candidates: Sequence[Sequence[int] | NDArray[np.int64]]) -> list[tuple[int, list[int]]]:
    """Return up to `LOOKED_AT` rows, spread evenly over shards with candidates and over each one's candidates."""
    import numpy as np

    filled = [number for number, rows in enumerate(candidates) if len(rows)]
    if not filled:
        return []
    places = np.linspace(0, len(filled) - 1, min(len(filled), SHARDS_LOOKED_AT)).round().astype(int)
    chosen = [filled[place] for place in np.unique(places)]
    each = -(-LOOKED_AT // len(chosen))
    spread = []
    for number in chosen:
        rows = np.asarray(candidates[number])
        positions = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), each)).round().astype(int))
        spread.append((number, rows[positions].tolist()))
    return spread


def _in_layers(manifest: Manifest, entry: ShardEntry, layer_names: Sequence[str]) -> NDArray[np.bool_]:
    """Return which samples in use have a caption in one of the layers."""
    import numpy as np

    present = np.zeros(entry.used, bool)
    for name in layer_names:
        captions = layers.captions_of(manifest, entry, name)
        present |= np.array([bool(texts) for texts in captions.to_pylist()], bool)[entry.positions()]
    return present


def _captions_of(manifest: Manifest, part: Part, rows: list[int], layer_names: Sequence[str]) -> list[str]:
    """Return the captions of some samples in use as training finds them: in the layers, in the sidecar, in the `.txt`."""
    entry = part.entry
    sidecar = _caption_columns(manifest, entry, rows)
    layered = [layers.captions_of(manifest, entry, name).take(entry.positions()[rows]).to_pylist() for name in layer_names]
    members = None if sidecar else part.scan or scan(manifest, entry)
    texts = []
    for number, row in enumerate(rows):
        candidates: list[str | None] = []
        for captions in layered:
            candidates += captions[number] or []
        if sidecar:
            candidates += [sidecar[number].get("caption"), *(sidecar[number].get("captions") or [])]
        if members is not None:
            content = _text_member(manifest, entry, members, row, "txt")
            candidates.append(caption_in(content if len(content) < MOST_TEXT else _without_cut_character(content)))
        texts.append(next((text for text in candidates if text and text.strip()), ""))
    return texts


def _without_cut_character(content: bytes) -> bytes:
    """Return the beginning of a text without the UTF-8 character that the cut may have gone through: it would look like no UTF-8."""
    for end in range(len(content) - 1, len(content) - 4, -1):
        if content[end] >= 0xC0:  # begins a character of several bytes
            return content[:end]
        if content[end] < 0x80:
            break
    return content


def _caption_columns(manifest: Manifest, entry: ShardEntry, rows: list[int]) -> list[dict[str, Any]]:
    """Return the captions in the sidecar of some samples in use; nothing where it has none."""
    if not entry.sidecar_sha256:
        return []
    with Shard(manifest, entry) as shard:
        table = shard.sidecar(["caption", "captions"])
    return list(table.take(rows).to_pylist()) if table.num_columns else []


def _text_member(manifest: Manifest, entry: ShardEntry, found: Scan, row: int, extension: str) -> bytes:
    """Return the beginning of a sample's member; nothing where it has none.

    Raises:
        RunError: the tar holds another member there.
    """
    member = next((m for m in found.group(row) if m.ext.lower() == extension), None)
    if member is None or not member.size:
        return b""
    path = manifest.path_of(entry)
    check_member(path, member.offset, member.size, member.name, functools.partial(fs.read_range, path))
    return fs.read_range(path, member.offset, min(member.size, MOST_TEXT))


def members_of(parts: Sequence[Part]) -> str:
    """Return the extensions of all scanned samples, 20 at most, as `.jpg .cls`; empty where no shard was scanned."""
    extensions: dict[str, None] = {}
    for part in parts:
        for kind in part.scan.kinds if part.scan else ():
            extensions |= dict.fromkeys(kind.split(" "))
    return fs.printable(" ".join(list(extensions)[:20]))


def _no_caption(manifest: Manifest, parts: Sequence[Part]) -> UsageError:
    """Return the refusal of a set without captions; it says where they may be instead."""
    found = f"{manifest.folder}: no sample has a caption; members are {members_of(parts)}"
    advice = _NEEDS_NONE
    key = _caption_key(manifest, parts)
    if key:
        found += f"; the .json has {key!r}"
        advice = "curate build-shards --source webdataset writes a .txt from the .json"
    return UsageError(found, "a .txt member, or a caption in the sidecar or a layer", advice)


def _caption_key(manifest: Manifest, parts: Sequence[Part]) -> str:
    """Return the key under which the first `.json` member holds a caption; empty if it does not."""
    for part in parts:
        if part.scan is None or not any(".json" in kind.split(" ") for kind in part.scan.kinds):
            continue
        rows = range(min(part.entry.used, LOOKED_AT))
        row = next((i for i in rows if any(m.ext.lower() == "json" for m in part.scan.group(i))), None)
        if row is None:
            continue
        member = next(m for m in part.scan.group(row) if m.ext.lower() == "json")
        content = fs.read_range(manifest.path_of(part.entry), member.offset, member.size)
        try:
            values: Any = json.loads(content)
        except (ValueError, RecursionError):
            return ""
        return next((key for key in CAPTION_KEYS if isinstance(values, Mapping) and values.get(key)), "")
    return ""


def _label_column(manifest: Manifest, entry: ShardEntry, name: str, classes: int) -> pa.ChunkedArray | pa.Array | None:
    """Return the labels of the samples in use; an empty column where statistics prove all; None for `.cls` members.

    Raises:
        UsageError: neither the sidecar nor a layer has the column, or it holds no whole numbers.
    """
    import pyarrow as pa

    if _proven(manifest, entry, name, classes):
        return pa.array([], pa.int64())
    with Shard(manifest, entry) as shard:
        sidecar = shard.sidecar([name])
    if name in sidecar.column_names:
        column = sidecar[name]
    else:
        layer = layers.read_column(manifest, entry, name)
        if layer is None:
            if name == CLASS:
                return None
            known = sorted({*layers.columns_of(manifest.folder_of(entry)), CLASS})
            raise UsageError(f"{manifest.folder}: no column {name!r} with labels", ", ".join(known), closest(name, known))
        column = layer.take(pa.array(entry.positions()))
    kind = column.type.value_type if pa.types.is_list(column.type) or pa.types.is_large_list(column.type) else column.type
    if not pa.types.is_integer(kind) and not pa.types.is_null(kind):
        raise UsageError(f"{manifest.folder}: the column {name!r} holds {column.type}", "whole numbers, or lists of them")
    return column


def _proven(manifest: Manifest, entry: ShardEntry, name: str, classes: int) -> bool:
    """Return whether the sidecar's statistics prove that each sample of the shard has a label in range."""
    import pyarrow.parquet as pq

    path = manifest.path_of(entry, ".parquet")
    if not entry.sidecar_sha256 or not fs.exists(path):
        return False
    with fs.open_read(path) as file:
        metadata = pq.read_metadata(file)
    paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    if name not in paths or not metadata.num_row_groups:
        return False
    for number in range(metadata.num_row_groups):
        statistics = metadata.row_group(number).column(paths.index(name)).statistics
        if statistics is None or not statistics.has_min_max or statistics.null_count or not isinstance(statistics.min, int):
            return False
        if statistics.min < 0 or (classes and statistics.max >= classes):
            return False
    return True


def _check_column(manifest: Manifest, part: Part, name: str, column: pa.ChunkedArray | pa.Array, classes: int) -> NDArray[np.bool_]:
    """Return which samples in use have no label.

    Raises:
        UsageError: a label is out of range.
    """
    import numpy as np
    import pyarrow as pa

    if pa.types.is_integer(column.type):
        values = column.fill_null(-1).to_numpy()
        wrong = (values < -1) | (values >= classes) if classes else values < -1
        if wrong.any():
            row = int(wrong.argmax())
            raise _out_of_range(f"{_place(manifest, part, row)}: label {values[row]} in {name!r}", manifest, classes)
        return np.asarray(values == -1) if len(values) else np.zeros(part.entry.used, bool)
    absent = np.ones(part.entry.used, bool)
    for row, labels in enumerate(column.to_pylist()):
        absent[row] = not labels
        for label in labels or ():
            if label is None or label < 0 or (classes and label >= classes):
                raise _out_of_range(f"{_place(manifest, part, row)}: label {label} in {name!r}", manifest, classes)
    return absent


def _check_class_member(manifest: Manifest, part: Part, found: Scan, row: int, classes: int) -> None:
    content = _text_member(manifest, part.entry, found, row, "cls").strip()
    if not content:
        return  # training takes it for a sample without a label
    is_number = content.isdigit() and len(content) <= 9
    if not is_number or (classes and int(content) >= classes):
        where = fs.printable(f"{part.entry.path}: {found.group(row)[0].key}")
        raise _out_of_range(f"{where}: .cls holds {content[:40].decode('utf-8', 'backslashreplace')!r}", manifest, classes)


def _out_of_range(found: str, manifest: Manifest, classes: int) -> UsageError:
    allowed = f"a class number from 0 to {classes - 1}" if classes else "a class number from 0 on"
    return UsageError(f"{manifest.folder}: {found}", allowed, "numbers count from 0: are there more classes than stated?")
