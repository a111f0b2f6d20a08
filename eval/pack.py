"""`evaluate pack`: a downstream set, once, as builds of ours: one data path then serves every protocol and fine-tuning.

A named set is read as its makers publish it. Any other set is read by its kind; where it has no splits, images go by the hash of their
bytes, so that copies fall on one side.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from eval import packed
from eval.data import open_examples
from eval.datasets.base import Columns, label_of
from eval.downstream.base import PACKAGE, EmptySplitError, checksum
from eval.pack_write import Written, write_split
from eval.splits import kind_of
from shards.classes.match import sorted_classes
from shards.core import fs, registry
from shards.core.config import MOST_WORKERS, option
from shards.core.console import emit, say
from shards.core.errors import UsageError, closest
from shards.core.notices import note

if TYPE_CHECKING:
    from eval.datasets.base import Examples

UNFINISHED = "unfinished"  # stands in the output folder until `dataset.json` does
_HASHED = (
    "test where x < {test:g}, val where x < {until:g}, else train; "
    "x = (first 8 bytes of the sha256 of the image's bytes, big-endian) / 2^64"
)
_USUAL_TEST = 0.2
_SHOWN = 3


@dataclass(frozen=True)
class PackConfig:
    """Flags of `evaluate pack`."""

    name: str = option("", "a downstream set of `evaluate list`; with --kind, what to call a set of your own", positional=True)
    input: str = option("", "the published files, unpacked; of a set of your own its folder or table", metavar="PATH")
    output: str = option("", "folder to write: dataset.json, and a build for each split", metavar="OUT")
    kind: str = option("", "for a set of your own: its kind (`evaluate list`), or `auto`", metavar="NAME")
    parts: dict[str, Any] = option({}, "for a set of your own, instead of --input: its splits, such as train=PATH test=PATH")
    only: tuple[str, ...] = option((), "pack these splits only", metavar="SPLIT")
    val_share: float = option(0.0, "share of images that validate, where a set of your own has no splits", least=0, below=1)
    test_share: float = option(_USUAL_TEST, "share of images that test, where a set of your own has no splits", least=0, below=1)
    classnames: str = option("", "class names of a set of your own, as for the protocols", metavar="FILE")
    image_column: str = option("", "image column of a table", metavar="NAME")
    label_column: str = option("", "label column of a table", metavar="NAME")
    split_column: str = option("", "split column of a table", metavar="NAME")
    overwrite: bool = option(False, "replace a packed set")
    workers: int = option(0, "decoding threads, at most one per core; 0 takes one per core", least=0, most=MOST_WORKERS)
    strict: bool = option(False, "exit 1 where an image was left out or encoded again")
    json: bool = option(False, "print JSON")


@dataclass(frozen=True)
class Opened:
    """A set whose labels are read, before an image is: its splits, and what `dataset.json` will say of it."""

    name: str
    summary: str
    kind: str
    parts: dict[str, Examples]
    rule: str
    shifts: dict[str, str] = field(default_factory=dict)
    published: str = ""


def pack(config: PackConfig) -> None:
    """Write a packed set.

    Raises:
        UsageError: flags, a layout, labels or classes that do not fit, or an output that is there; nothing is written then.
        TornFileError: a published file is cut off.
    """
    _check(config)
    opened = _own(config) if config.kind or config.parts else _named(config)
    classes = {examples.classes for examples in opened.parts.values()}
    assert len(classes) == 1, "one order of classes"
    _prepare(config)
    written: dict[str, Written] = {}
    for split, examples in opened.parts.items():
        written[split] = write_split(fs.join(config.output, split), examples, opened.name, config.workers)
    dataset = _dataset(opened, written)
    dataset.save(config.output)
    fs.remove(fs.join(config.output, UNFINISHED))
    _tell(opened, written, config.output)
    for split in written:
        stated = dataset.split(split)
        say(f"{fs.join(config.output, split)}: {stated.samples:,} images, digest {stated.digest[:12]}")
    if config.json:
        emit({"output": config.output, "name": dataset.name, "splits": dataset.splits, "split_checksum": dataset.split_checksum})


def _check(config: PackConfig) -> None:
    """Refuse flags and paths, before anything is read.

    Raises:
        UsageError: one does not do.
    """
    known = registry.names(PACKAGE)
    own = bool(config.kind or config.parts)
    if not own and config.name not in known:
        advice = closest(config.name, known) if config.name else "for a set of your own: --kind auto"
        raise UsageError(f"evaluate pack {config.name or '(no name)'}", ", ".join(known), advice or "for a set of your own: --kind auto")
    if bool(config.input) == bool(config.parts):
        raise UsageError("evaluate pack: where is the set?", "--input PATH, or --parts train=PATH test=PATH")
    if not config.output:
        raise UsageError("no output folder", "--output OUT")
    if config.val_share + config.test_share >= 1:
        raise UsageError(f"--val-share {config.val_share:g} --test-share {config.test_share:g}", "a sum below 1")
    if not own and (config.classnames or config.image_column or config.label_column or config.split_column):
        raise UsageError(f"{config.name}: columns or class names given", "for a set of your own, with --kind")
    output = config.output.rstrip("/")
    if output in (config.input.rstrip("/"), *(str(path).rstrip("/") for path in config.parts.values())):
        raise UsageError(f"--output {output}: the input itself", "another folder")
    there = [name for name in fs.names(output) if name != fs.LOCK]
    ours = packed.NAME in there or UNFINISHED in there
    if there and not (ours and config.overwrite):
        advice = "--overwrite" if ours else "a folder that is free"
        raise UsageError(f"--output {output}: holds {', '.join(there[:_SHOWN])}", "a new folder, or a packed set with --overwrite", advice)


def _prepare(config: PackConfig) -> None:
    """Make room for the output, and mark it as unfinished."""
    for name in fs.names(config.output):
        if name != fs.LOCK:
            fs.remove(fs.join(config.output, name))
    fs.make_dirs(config.output)
    fs.write_text(fs.join(config.output, UNFINISHED), "evaluate pack has not finished; --overwrite starts anew\n")


def _named(config: PackConfig) -> Opened:
    """Open a named set's splits."""
    module: Any = registry.get(PACKAGE, config.name)
    there = module.splits(config.input)
    wanted = _chosen(there, config)
    parts = {}
    for split in wanted:
        try:
            parts[split] = module.load(config.input, split)
        except EmptySplitError as error:
            note(1, "[split|splits] without an image left out", error.found)
    if not parts:
        raise UsageError(f"{config.input}: no split with an image", module.LAYOUT)
    for examples in parts.values():
        if examples.classes != next(iter(parts.values())).classes:
            raise UsageError(f"{config.input}: splits of different classes", module.LAYOUT)
    shifts = {split: words for split, words in getattr(module, "SHIFTS", {}).items() if split in parts}
    rule = getattr(module, "RULE", None)
    published = getattr(module, "CHECKSUM", "") if set(wanted) == set(there) else ""
    summary = registry.summary(PACKAGE, config.name)
    return Opened(config.name, summary, config.name, parts, rule.text if rule else "official", shifts, published)


def _own(config: PackConfig) -> Opened:
    """Open a set of the user's own."""
    columns = Columns(config.image_column, config.label_column, config.split_column)
    kind = "" if config.kind == "auto" else config.kind
    paths = {str(split): str(path) for split, path in config.parts.items()} or _inside(config.input, kind, columns)
    parts = {split: open_examples(path, kind, config.classnames, columns) for split, path in paths.items()}
    rule = "as the set has them"
    if not paths:
        whole = open_examples(config.input, kind, config.classnames, columns)
        parts, rule = _hashed(whole, config), _HASHED.format(test=config.test_share, until=config.test_share + config.val_share)
    parts = {split: parts[split] for split in _chosen(list(parts), config)}
    name = config.name or label_of(config.input or next(iter(paths.values())))
    return Opened(name.replace("/", "-"), "", config.kind or "auto", _aligned(parts), rule)


def _inside(path: str, kind: str, columns: Columns) -> dict[str, str]:
    """Return the splits that a set has: of a table those of its split column, of a folder its folders of splits."""
    from eval.datasets import table

    if kind in ("", "table") and table.recognises(path):
        return {split: f"{path}@{split}" for split in table.splits(path, columns)}
    found: dict[str, str] = {}
    for name in fs.names(path) if fs.is_dir(path) else []:
        split, folder = kind_of(name), fs.join(path, name)
        if split and fs.is_dir(folder):
            if split in found:
                raise UsageError(f"{path}: two folders for {split}: {found[split]}, {folder}", "one", "--parts train=PATH test=PATH")
            found[split] = folder
    return found if len(found) > 1 else {}


def _hashed(whole: Examples, config: PackConfig) -> dict[str, Examples]:
    """Return the splits of a set by the hashes of its images' bytes; a side without an image is left out."""
    places = [int(text[:16], 16) / 2**64 for text in whole.hashes.astype(str).tolist()]
    until = config.test_share + config.val_share
    sides = {
        packed.TRAIN: [i for i, x in enumerate(places) if x >= until],
        packed.VAL: [i for i, x in enumerate(places) if config.test_share <= x < until],
        packed.TEST: [i for i, x in enumerate(places) if x < config.test_share],
    }
    return {split: whole.take(positions) for split, positions in sides.items() if positions}


def _aligned(parts: dict[str, Examples]) -> dict[str, Examples]:
    """Return splits with one order of classes: all names of any of them; of numbered classes the most."""
    every = list(parts.values())
    if all(examples.classes == every[0].classes for examples in every):
        return parts
    if not all(examples.named for examples in every):
        if any(examples.named for examples in every):
            raise UsageError(f"{every[0].name}: some splits name their classes, others do not", "names in all", "--classnames FILE")
        longest = max((examples.classes for examples in every), key=len)
        return {split: replace(examples, classes=longest) for split, examples in parts.items()}
    union = sorted_classes(sorted({name for examples in every for name in examples.classes}))
    for split, examples in parts.items():
        missing = len(union) - len(examples.classes)
        note(
            missing,
            f"[class is|classes are] not in the split {split}",
            f"such as {sorted(set(union) - set(examples.classes))[:_SHOWN]}" if missing else "",
        )
    return {split: examples.relabel(union) for split, examples in parts.items()}


def _chosen(there: list[str], config: PackConfig) -> list[str]:
    """Return the splits to pack, in the set's order.

    Raises:
        UsageError: one of `--only` is not there.
    """
    for split in config.only:
        if split not in there:
            raise UsageError(f"--only {split}: no such split", ", ".join(there), closest(split, there))
    return [split for split in there if split in config.only or not config.only]


def _dataset(opened: Opened, written: dict[str, Written]) -> packed.Dataset:
    """Return what `dataset.json` says."""
    first = next(iter(opened.parts.values()))
    splits: dict[str, Any] = {}
    rows: list[tuple[str, int, str]] = []
    for split, examples in opened.parts.items():
        done = written[split]
        digest = _digest(examples, done)
        splits[split] = {"samples": len(done.hashes), "digest": digest, "manifest": done.manifest.digest, "undecodable": len(done.dropped)}
        splits[split] |= {"shift": opened.shifts.get(split, "")}
        if split not in opened.shifts:
            rows += [(id, int(label), split) for id, label in zip(examples.ids, examples.labels, strict=True)]
    stated = checksum(rows)
    whole = stated == opened.published if opened.published else None
    note(
        int(whole is False),
        "split [list is|lists are] not that of the whole published set",
        f"its checksum is {stated[:12]}, not {opened.published[:12]}",
    )
    return packed.Dataset(
        name=opened.name,
        metric=first.metric,
        classes=first.classes,
        templates=first.templates,
        splits=splits,
        class_digest=first.class_digest,
        split_rule=opened.rule,
        split_checksum=stated,
        whole=whole,
        named=first.named,
        summary=opened.summary,
        kind=opened.kind,
    )


def _digest(examples: Examples, done: Written) -> str:
    """Return the digest of the images and labels that were written, as the packed set will have it."""
    import numpy as np

    return replace(examples.take(done.positions), known_hashes=np.array(done.hashes, dtype="S64")).digest


def _tell(opened: Opened, written: dict[str, Written], output: str) -> None:
    """Tell at the end what was left out or encoded again, and what stands on two sides."""
    for split, done in written.items():
        examples = opened.parts[split]
        for count, what, where in examples.told:
            note(count, what, where)
        example = " such as {0}: {2}".format(*done.dropped[0]) if done.dropped else ""
        note(len(done.dropped), f"[image|images] of {split} left out", f"{fs.join(output, split, 'ledger')} says why{example}")
        again = done.encoded[0] if done.encoded else ""
        note(
            len(done.encoded),
            f"[image|images] of {split} encoded again as .{done.ending}",
            f"no plain {done.ending.upper()}, such as {again}",
        )
        empty = [name for label, name in enumerate(examples.classes) if not (examples.labels == label).any()]
        note(len(empty), f"of {len(examples.classes)} classes [has|have] no image in {split}", f"such as {', '.join(empty[:_SHOWN])}")
    train = set(written[packed.TRAIN].hashes) if packed.TRAIN in written else set()
    for split in written:
        if split != packed.TRAIN:
            twice = sum(one in train for one in written[split].hashes)
            note(twice, f"[image of {split} is a training image|images of {split} are training images] too, byte for byte", opened.name)
