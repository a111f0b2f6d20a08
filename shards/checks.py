"""What must hold of a shard set: one function per check, each yielding the problems it finds."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from shards import tar
from shards.core import fs
from shards.core.errors import ProvenderError
from shards.core.notices import note
from shards.manifest import NAME, SIZES, Manifest, ShardEntry, read_written, without_removed
from shards.proof import prove
from shards.reader import Shard
from shards.sample import IMAGE_EXTENSIONS, KEY_RULE, has_hard_ending
from shards.tally import Tally
from shards.tar import Member

SIDECAR_COLUMNS = ("key", "sha256", "bytes", "width", "height", "caption")
_RESTORE = "restore the file from a copy, or build again with --overwrite"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, what was found, what should be, what to do."""

    where: str
    found: str
    expected: str
    advice: str = ""

    def __str__(self) -> str:
        line = f"{self.where}: {self.found}; expected {self.expected}"
        return f"{line} ({self.advice})" if self.advice else line


def check_totals(manifest: Manifest) -> Iterator[Problem]:
    """The manifest's sums: samples, bytes, and inputs = kept + held out + spare + dropped for each source."""
    used, size = sum(e.used for e in manifest.shards), sum(e.bytes for e in manifest.shards)
    if manifest.samples != used:
        yield Problem(NAME, f"{manifest.samples} samples", f"{used}, the sum over its shards")
    if manifest.bytes != size:
        yield Problem(NAME, f"{manifest.bytes} bytes", f"{size}, the sum over its shards")
    for name, source in manifest.sources.items():
        if "inputs" in source:
            parts = source.get("kept", 0) + source.get("holdout", 0) + source.get("spare", 0) + sum(source.get("dropped", {}).values())
            if source["inputs"] != parts:
                yield Problem(f"{NAME}: source {name}", f"{source['inputs']} inputs", f"{parts}, what became of them")


def check_sizes(manifest: Manifest) -> Iterator[Problem]:
    """sizes.json, from which open_clip learns how many samples there are."""
    stated, current = _stated_sizes(manifest.folder), without_removed(manifest).sizes()
    if stated == current:
        return
    # A subset's file is as old as the subset. That samples were taken down in its parent since is no fault of it.
    path = fs.join(manifest.folder, SIZES)
    earlier = [manifest.sizes()]
    if fs.exists(fs.join(manifest.folder, NAME)):
        earlier.append(read_written(manifest.folder).sizes())
    if isinstance(stated, dict) and stated in earlier:
        gone = sum(stated.values()) - sum(current.values())
        note(gone, "[sample|samples] that sizes.json counts [was|were] taken down since", path)
        return
    yield Problem(SIZES, "absent" if stated is None else str(stated)[:80], str(current)[:80])


def _stated_sizes(folder: str) -> object:
    """Return what sizes.json in a folder states: None where there is none, a text where it is no JSON."""
    path = fs.join(folder, SIZES)
    if not fs.exists(path):
        return None
    try:
        return json.loads(fs.read_text(path))
    except (ValueError, RecursionError):
        return "no JSON"


def check_strays(manifest: Manifest) -> Iterator[Problem]:
    """Tars and half-written files in the folder that the manifest does not know, which a peer's glob would read.

    What `shards index` passes over is no problem but a notice: it was there when the set was indexed, and said then.
    """
    known = {e.path for e in manifest.shards}
    foreign = not any(entry.sidecar_sha256 for entry in manifest.shards)
    passed_over = Tally()
    for name in fs.names(manifest.folder):
        if ".tmp-" in name:
            yield Problem(name, "a half-written file", "none", "remove it")
        elif not name.endswith(".tar") or name in known:
            continue
        elif kind := _passed_over(manifest, name, foreign=foreign):
            passed_over.add(kind, name)
        else:
            yield Problem(name, "a tar that the manifest does not list", "listed shards alone", "remove it")
    passed_over.note()


def _passed_over(manifest: Manifest, name: str, *, foreign: bool) -> str:
    """Return the kind of a tar that `shards index` leaves out, such as a resource fork of macOS; empty where it is a stray.

    Beside shards of a build only a hidden tar is none: peers' globs read all others.
    """
    if name.startswith("."):
        return tar.HIDDEN
    if not foreign:
        return ""
    if name in manifest.bad_files:
        return "torn [tar|tars] left out (the manifest names [it|them])"
    path = fs.join(manifest.folder, name)
    if kind := tar.special(path):
        return tar.no_file(kind)
    try:
        groups, torn = tar.read_whole_samples(path)
    except (ProvenderError, OSError):
        return ""
    return "" if groups or torn else tar.NO_SAMPLE


def check_checksums(manifest: Manifest, entry: ShardEntry) -> Iterator[Problem]:
    """Each file is there with the size and the sha256 that the manifest states."""
    stated = ((".tar", entry.sha256), (".idx", entry.index_sha256), (".parquet", entry.sidecar_sha256))
    for suffix, expected in stated:
        path = manifest.path_of(entry, suffix)
        if not expected:
            continue
        if not fs.exists(path):
            yield Problem(path, "absent", "a file", _RESTORE)
            continue
        if kind := tar.special(path):  # reading a pipe would wait for ever
            yield Problem(path, kind, "a file", _RESTORE)
            continue
        if suffix == ".tar" and (size := fs.size(path)) != entry.bytes:
            yield Problem(path, f"{size} bytes", f"{entry.bytes}", _RESTORE)
        elif (digest := fs.sha256(path)) != expected:
            yield Problem(path, f"sha256 {digest[:12]}…", f"{expected[:12]}…", _RESTORE)


def check_count(path: str, entry: ShardEntry, groups: Sequence[list[Member]]) -> Iterator[Problem]:
    """The tar holds as many samples as the manifest says, one at least, and the ranges in use lie inside."""
    if len(groups) != entry.samples or not groups:
        yield Problem(path, f"{len(groups)} samples", f"{entry.samples}" if entry.samples else "at least one")
    use = entry.use or ()
    if len(use) % 2 or any(b <= a for a, b in itertools.pairwise(use)) or (use and not 0 <= use[0] < use[-1] <= entry.samples):
        yield Problem(path, f"use {list(use)[:8]}", f"rising half-open ranges inside [0, {entry.samples})")


def check_index(manifest: Manifest, entry: ShardEntry, groups: Sequence[list[Member]]) -> Iterator[Problem]:
    """The `.idx` is what a walk through the tar gives (of the samples in use, for a cut one)."""
    path = manifest.path_of(entry, ".idx")
    if not fs.exists(path):
        return  # a stated but absent one is a matter of check_checksums; a foreign set may have none
    used = [group for start, stop in entry.ranges for group in groups[start:stop]] if entry.index else groups
    expected, written = tar.format_index(used).splitlines(), fs.read_bytes(path).decode("utf-8", "surrogateescape").splitlines()
    if written != expected:
        line = next((i for i, (a, b) in enumerate(zip(written, expected, strict=False)) if a != b), min(len(written), len(expected)))
        show = [lines[line] if line < len(lines) else "nothing" for lines in (written, expected)]
        yield Problem(f"{path}, line {line + 1}", repr(show[0])[:120], repr(show[1])[:120], "shards index writes it anew")


def check_members(path: str, members: Sequence[str], groups: Sequence[list[Member]]) -> Iterator[Problem]:
    """Every sample has the same members, each once."""
    expected = sorted(members) or (sorted(m.ext for m in groups[0]) if groups else [])
    for group in groups:
        extensions = sorted(m.ext for m in group)
        if extensions != expected:
            yield Problem(f"{path}: {group[0].key}", f"members {extensions}", f"{expected}")


def check_adjacent(path: str, groups: Sequence[list[Member]], *, own: bool) -> Iterator[Problem]:
    """The members of a sample stand together. In shards of our own (`own`) no key comes back later; in a foreign tar one
    may that stands for another sample, with the same members."""
    if not own:
        for key in tar.scattered(groups):
            yield Problem(f"{path}: {key}", "its members stand apart", "its members side by side", "tar --sort=name, then shards index")
        return
    seen: set[str] = set()
    for group in groups:
        if group[0].key in seen:
            yield Problem(f"{path}: {group[0].key}", "comes twice, with other samples between", "its members side by side")
        seen.add(group[0].key)


def check_keys(path: str, groups: Sequence[list[Member]]) -> Iterator[Problem]:
    """Keys and names are such that every reader takes them: no dot, space or slash, at most 99 bytes with the ending."""
    for group in groups:
        key = group[0].key
        if not KEY_RULE.fullmatch(key):
            yield Problem(f"{path}: {key!r}", "a key that some readers cannot take", "letters, digits, '_' and '-', at most 90")
        for member in group:
            if has_hard_ending(member.name, member.ext):
                yield Problem(f"{path}: {member.name!r}", "an ending that some readers cannot take", "lower case, 99 bytes in all")


def check_pictures(manifest: Manifest, pictures: int, members: Sequence[str]) -> Iterator[Problem]:
    """There is something to decode: some sample in use has an image. `pictures` counts those, `members` has all extensions."""
    if manifest.samples and not pictures:
        problem = "no member is a picture; members are " + (" ".join(f".{m}" for m in members) or "none")
        yield Problem(NAME, problem, ".jpg, .jpeg, .png or .webp members")


def check_sidecar(path: str, groups: Sequence[list[Member]], rows: Any) -> Iterator[Problem]:
    """The sidecar has one row per sample, in the tar's order. `rows`: the whole `.parquet`, None where it has no part."""
    if rows is None:
        return
    keys = rows["key"].to_pylist() if "key" in rows.column_names else []
    if len(keys) != len(groups):
        yield Problem(path, f"{len(keys)} rows", f"{len(groups)}, one per sample", _RESTORE)
        return
    for i, (key, group) in enumerate(zip(keys, groups, strict=True)):
        if key != group[0].key:
            yield Problem(f"{path}, row {i}", f"key {key}", f"{group[0].key}, as in the tar", _RESTORE)
            return


def check_image(shard: Shard, i: int, row: dict[str, Any]) -> Iterator[Problem]:
    """Sample i of those in use decodes to its last row, and is what its sidecar row says."""
    where = f"{shard.path}: {shard.key(i)}"
    try:
        contents = {m.ext: shard.read_range(m.offset, m.size) for m in shard.groups[i]}
    except ProvenderError as error:
        yield Problem(where, error.found, "the bytes that the index promises", _RESTORE)
        return
    for ext in (e for e in contents if e in IMAGE_EXTENSIONS):
        try:
            width, height = prove(contents[ext])
        except ValueError as error:
            yield Problem(f"{where}.{ext}", str(error), "an image that decodes to its last row", "shards remove, or build again")
            continue
        facts = {"bytes": len(contents[ext]), "sha256": hashlib.sha256(contents[ext]).hexdigest(), "width": width, "height": height}
        for column, value in facts.items():
            if column in row and row[column] != value:
                yield Problem(f"{where}.{ext}", f"{column} {value}", f"{row[column]}, as the sidecar says", _RESTORE)
    if "txt" in contents and "caption" in row and contents["txt"] != row["caption"].encode():
        yield Problem(f"{where}.txt", repr(contents["txt"].decode("utf-8", "replace"))[:80], repr(row["caption"])[:80], _RESTORE)
