"""What is wrong with a set, found before the first image or model is touched.

What a build's own manifest proves is not read again: of shards with a sidecar, only that each tar is there with its size.
Of foreign tars (`shards index`) the `.idx` is scanned; `shards verify` alone reads all bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from shards import layers as layer_files
from shards import presence
from shards.core import fs
from shards.core.errors import UsageError
from shards.manifest import Manifest, ShardEntry, entries
from shards.presence import Counts, Part
from shards.scan import Scan, scan
from shards.weights import check_weights

THREADS = 16  # a stat of a remote store waits some 50 ms: 1,500 tars in 5 s

_LINES = {
    "without_image": "samples without an image",
    "without_caption": "samples without a caption",
    "empty_captions": "samples with an empty .txt",
    "blank_captions": "of {captions_looked_at} captions looked at are blank, or only say nan, None or null",
    "captions_not_utf8": "of {captions_looked_at} captions looked at are no UTF-8, and are read as cp1252",
    "without_label": "samples without a label",
    "repeated_keys": "keys that stand for several samples (a sample is then known by its tar and place)",
}
# The kinds of `presence.Counts`, by the fields of `Findings`.
_OF_CAPTIONS = {"without": "without_caption", "empty": "empty_captions", "blank": "blank_captions", "not_utf8": "captions_not_utf8"}


@dataclass(frozen=True)
class Findings:
    """What a preflight counted; a set with any of these can be used.

    Attributes:
        samples, shards: in use.
        members: how many samples of foreign tars have which members, the most frequent first: ((`.jpg .txt`, 62), …).
        without_image: foreign samples without a member of an image extension.
        without_caption, empty_captions: foreign samples without `.txt`, and with one of no byte; 0 where no captions were asked for.
        blank_captions, captions_looked_at: how many of the captions that were looked at are white space, null or a word for it.
        captions_not_utf8: how many of them are no UTF-8, and are read as cp1252.
        without_label: samples without a label; 0 where none were asked for.
        repeated_keys: keys that come more than once in the foreign tars.
        where: the first place of each kind, by the field's name, as `00000.tar: 0003`.
    """

    samples: int
    shards: int
    members: tuple[tuple[str, int], ...] = ()
    without_image: int = 0
    without_caption: int = 0
    empty_captions: int = 0
    blank_captions: int = 0
    captions_not_utf8: int = 0
    captions_looked_at: int = 0
    without_label: int = 0
    repeated_keys: int = 0
    where: dict[str, str] = field(default_factory=dict)

    @property
    def problems(self) -> int:
        """The sum of all counts: what `--strict` refuses where it is not 0."""
        return sum(getattr(self, name) for name in _LINES)

    def lines(self) -> list[str]:
        """Return a line for each kind of problem: its count, and where the first one is."""
        lines = []
        for name, text in _LINES.items():
            count = getattr(self, name)
            if count:
                told = text.format(captions_looked_at=self.captions_looked_at)
                lines.append(f"{count:,} {told}, such as {self.where.get(name, '')}")
        return lines


def preflight(
    manifest: Manifest,
    *,
    captions: bool,
    labels: str = "",
    classes: int = 0,
    layers: Sequence[str] = (),
    weights: str = "",
    samples: int | None = None,
) -> Findings:
    """Check that a set can be trained on or evaluated.

    Args:
        manifest: the set.
        captions: whether samples should have captions.
        labels: where samples should have labels: a column of the sidecars or of a layer; `class` also stands for `.cls`
            members. Empty where none are needed.
        classes: how many classes there are; 0 where that is not known.
        layers: layers whose captions count, too.
        weights: the column of the sidecars or of a layer that weighs samples; empty for none.
        samples: judge the first so many samples alone, and their tars; None for all.

    Raises:
        UsageError: a tar is missing or of another size than the manifest's; members of a sample stand apart; no sample
            has an image, a caption or a label where one is needed; a label is out of range; a layer is not there; a
            weight is none, or all are 0.
        TornFileError: an index cannot be parsed.
        RunError: a caption or label that is looked at does not lie where its index says.
    """
    manifest = _first(manifest, samples)
    _check_tars(manifest)
    used = [entry for entry in manifest.shards if entry.used]
    with ThreadPoolExecutor(THREADS) as pool:
        parts = list(pool.map(lambda entry: Part(entry, _scan_foreign(manifest, entry)), used))
    where: dict[str, str] = {}
    without_image = _without_image(manifest, parts, where)
    repeated = _repeated_keys(parts, where)
    if weights:
        check_weights(manifest, weights)
    if captions:
        _check_layers(manifest, layers)
    captioned = presence.check_captions(manifest, parts, layers) if captions else Counts()
    labelled = presence.check_labels(manifest, parts, labels, classes) if labels else Counts()
    where |= {_OF_CAPTIONS[kind]: place for kind, place in captioned.where.items()}
    if "without" in labelled.where:
        where["without_label"] = labelled.where["without"]
    return Findings(
        samples=sum(entry.used for entry in used),
        shards=len(used),
        members=_members(parts),
        without_image=without_image,
        without_caption=captioned.without,
        empty_captions=captioned.empty,
        blank_captions=captioned.blank,
        captions_not_utf8=captioned.not_utf8,
        captions_looked_at=captioned.looked_at,
        without_label=labelled.without,
        repeated_keys=repeated,
        where=where,
    )


def _members(parts: list[Part]) -> tuple[tuple[str, int], ...]:
    """Return how many foreign samples have which members, the most frequent first."""
    members = Counter[str]()
    for part in parts:
        members.update(part.scan.kinds if part.scan else {})
    return tuple(members.most_common())


def _first(manifest: Manifest, samples: int | None) -> Manifest:
    """Return the manifest of the first so many samples in use; its counts by source stay those of the whole set."""
    if samples is None or samples >= manifest.samples:
        return manifest
    shards = []
    for entry, before in entries(manifest):
        if before >= samples:
            break
        left = entry.positions()[: samples - before]
        shards.append(entry if len(left) == entry.used else replace(entry.cut(left), index=entry.index))
    return replace(manifest, shards=tuple(shards), samples=samples)


def _check_tars(manifest: Manifest) -> None:
    """Refuse a set with a tar that is missing, shorter or longer than the manifest says."""
    stated = {manifest.path_of(entry): entry for entry in manifest.shards}
    with ThreadPoolExecutor(THREADS) as pool:
        found = dict(zip(stated, pool.map(_size_or_reason, stated), strict=True))
    wrong = [path for path, entry in stated.items() if found[path] != entry.bytes]
    if not wrong:
        return
    path = wrong[0]
    size = found[path]
    what = f"{size:,} bytes" if isinstance(size, int) else size
    more = f" ({len(wrong) - 1:,} more tars are wrong)" if len(wrong) > 1 else ""
    advice = "restore the file from a copy; shards verify tells all that is wrong"
    if not stated[path].sidecar_sha256:
        advice = f"shards verify; or shards index {manifest.folder} --overwrite, if the tars were rewritten or taken away on purpose"
    raise UsageError(f"{path}: {what}{more}", f"{stated[path].bytes:,} bytes, as the manifest says", advice)


def _size_or_reason(path: str) -> int | str:
    try:
        return fs.size(path)
    except FileNotFoundError:
        return "no such file"
    except OSError as error:
        return error.strerror or type(error).__name__


def _check_layers(manifest: Manifest, names: Sequence[str]) -> None:
    """Refuse layers without captions, in any of the folders that the tars lie in.

    Raises:
        UsageError: naming the layer and those that there are.
    """
    for entry in layer_files.first_shards(manifest).values():
        for name in names:
            layer_files.captions_of(manifest, entry, name)


def _scan_foreign(manifest: Manifest, entry: ShardEntry) -> Scan | None:
    """Return what a foreign tar holds, None for a shard of a build.

    Raises:
        UsageError: members of a sample stand apart.
    """
    if entry.sidecar_sha256:
        return None
    found = scan(manifest, entry)
    if found.apart:
        path = manifest.path_of(entry)
        example = fs.printable(found.apart[0])
        raise UsageError(
            f"{path}: members of {len(found.apart):,} samples stand apart, such as those of {example!r}",
            "the members of a sample one after the other",
            "pack the tar again with `tar --sort=name -cf`, then shards index --overwrite",
        )
    return found


def _without_image(manifest: Manifest, parts: list[Part], where: dict[str, str]) -> int:
    """Return how many foreign samples have no image.

    Raises:
        UsageError: none has one.
    """
    number, samples = 0, 0
    for part in parts:
        samples += part.entry.used
        if part.scan is not None and not part.scan.image.all():
            row = int(part.scan.image.argmin())
            where.setdefault("without_image", fs.printable(f"{part.entry.path}: {part.scan.group(row)[0].name}"))
            number += int((~part.scan.image).sum())
    if not samples:
        raise UsageError(f"{manifest.folder}: no sample in use", "at least one")
    if number == samples:
        kinds = presence.members_of(parts)
        raise UsageError(f"{manifest.folder}: no sample has an image; members are {kinds}", ".jpg, .jpeg, .png or .webp members")
    return number


def _repeated_keys(parts: list[Part], where: dict[str, str]) -> int:
    """Return how many keys come more than once in the foreign tars; by their hashes."""
    import numpy as np

    scans = [(part.entry, part.scan) for part in parts if part.scan is not None]
    if not scans:
        return 0
    hashes = np.sort(np.concatenate([found.keys for _, found in scans]))
    again = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
    if not len(again):
        return 0
    for entry, found in scans:
        rows = np.flatnonzero(np.isin(found.keys, again))
        if len(rows):
            where["repeated_keys"] = fs.printable(f"{entry.path}: {found.group(int(rows[0]))[0].key}")
            break
    return len(again)
