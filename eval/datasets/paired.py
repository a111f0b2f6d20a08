"""Images with their captions, for retrieval: CLIP_benchmark's tars, captions JSON (COCO, Karpathy), captions tables, a build of ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from eval import packed
from eval.datasets import webdataset
from eval.datasets.base import METRIC, TEMPLATES, Columns, Examples, content_hashes, label_of, read_file
from eval.splits import refuse_mixture
from shards import tar
from shards.core import fs
from shards.core.config import digest
from shards.core.errors import RunError, UsageError, closest
from shards.folders import FolderItem, is_visible, read_folder
from shards.manifest import NAME, Manifest, read_manifest
from shards.reader import Shard
from shards.sample import IMAGE_EXTENSIONS
from shards.tables.text import decoded
from shards.tables.values import caption_in

if TYPE_CHECKING:
    import numpy as np

__all__ = ["METRIC", "TEMPLATES", "Paired", "load", "open_paired", "recognises"]

_ALLOWED = (
    "a folder of images with a captions file, a captions file (CSV, TSV, .token, COCO's or Karpathy's JSON), WebDataset tars with .txt, "
    "or a build"
)
_SHOWN = 5


@dataclass(frozen=True, eq=False)
class Paired:
    """Images, each with one caption or several. Nothing is read but captions until `read` or `hashes` is asked for.

    Attributes:
        name: what tables call it.
        ids: one name per image, for messages.
        read: position → encoded image bytes; called from several threads. May raise for one image.
        captions: of each image, at least one.
        told: what opening passed over: (count, what, where), for the end of a command.
        known_hashes: the images' sha256 where they are known without reading, (n,) bytes of 64 hex digits.
    """

    name: str
    ids: tuple[str, ...]
    read: Callable[[int], bytes]
    captions: tuple[tuple[str, ...], ...]
    told: tuple[tuple[int, str, str], ...] = ()
    known_hashes: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not self.ids:
            raise UsageError(f"{self.name}: no image with a caption", "at least one")
        bare = next((i for i, texts in enumerate(self.captions) if not texts), None)
        if bare is not None:
            raise UsageError(f"{self.name}: {self.ids[bare]} has no caption", "at least one for each image")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def pairs(self) -> list[tuple[int, str]]:
        """All captions in the order of images, each with its image's position."""
        return [(i, text) for i, texts in enumerate(self.captions) for text in texts]

    @cached_property
    def hashes(self) -> np.ndarray:
        """sha256 (hex, ASCII bytes) of every image's bytes, (n,); read once. What cannot be read is hashed by its name."""
        return self.known_hashes if self.known_hashes is not None else content_hashes(self.ids, self.read)

    @property
    def digest(self) -> str:
        """sha256 of the images with their captions, whatever their order and the container they came in."""
        return digest(sorted([text, *captions] for text, captions in zip(self.hashes.astype(str).tolist(), self.captions, strict=True)))

    def take(self, positions: Sequence[int] | np.ndarray) -> Paired:
        """Return the view of some positions, in that order."""
        import numpy as np

        chosen = [int(i) for i in positions]
        known = self.__dict__.get("hashes", self.known_hashes)
        return replace(
            self,
            ids=tuple(self.ids[i] for i in chosen),
            read=lambda i: self.read(chosen[i]),
            captions=tuple(self.captions[i] for i in chosen),
            known_hashes=None if known is None else known[np.asarray(chosen, dtype=np.int64)],
        )

    def telling(self, count: int, what: str, where: str) -> Paired:
        """Return the same set with one more thing to tell at the end; a count of 0 is nothing to tell."""
        return replace(self, told=(*self.told, (count, what, where))) if count else self


def recognises(path: str) -> bool:
    """Return whether the path is a set of pairs by its names: tars that say so, or a JSON object of images and captions."""
    if webdataset.type_of(path) == webdataset.RETRIEVAL:
        return True
    if not path.lower().endswith(".json") or path.endswith(NAME) or not fs.exists(path) or fs.is_dir(path):
        return False
    with fs.open_read(path) as file:
        return file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")


def load(path: str, columns: Columns) -> Examples:
    """Refuse a set of pairs where a labelled set is due.

    Raises:
        UsageError: always.
    """
    raise UsageError(f"{path}: images with captions, without labels", "a labelled set", "evaluate retrieval")


def open_paired(path: str, *, split: str = "", image_column: str = "", caption_column: str = "", images: str = "") -> Paired:
    """Return the images and captions at a path.

    Args:
        path: a captions file, a folder of images with one, tars, a pattern of tars, or a build.
        split: of Karpathy's JSON or a table with a split column, the split to take; `test` where the file has it.
        image_column, caption_column: columns of a table; common names are guessed.
        images: the folder of the images, where it is not the captions file's.

    Raises:
        UsageError: nothing there, no captions, or a split that is not there.
        TornFileError: a file is cut off.
    """
    manifest = path.endswith(NAME) or (fs.is_dir(path) and fs.exists(fs.join(path, NAME)))
    if manifest:
        return _build(path, read_manifest(path))
    if path.endswith(".tar") or (fs.is_dir(path) and any(name.endswith(".tar") for name in fs.names(path))):
        return _tars(path)
    if not fs.exists(path):
        raise UsageError(f"no data at {path!r}", _ALLOWED)
    if packed.folder_of(path)[0]:
        raise UsageError(f"{path}: a packed set, whose images have classes and no captions", _ALLOWED, "evaluate zeroshot")
    return _listed(path, split, image_column, caption_column, images)


def _listed(path: str, split: str, image_column: str, caption_column: str, images: str) -> Paired:
    """Return the images that a captions file names. Images that are not there, or have no caption, are told."""
    found = read_folder(path, image_column=image_column, caption_column=caption_column, images=images)
    if found.layout in ("classes", "images"):
        raise UsageError(f"{path}: images without captions", _ALLOWED)
    items = list(found)
    chosen, taken = _of_split(path, items, split)
    usable = [item for item in chosen if item.image and item.captions]
    missing = [item for item in chosen if not item.image]
    bare = [item for item in chosen if item.image and not item.captions]
    if not usable:
        why = missing[0].problem if missing else "no captions"
        raise UsageError(f"{path}: none of {len(chosen)} images has its file and a caption: {why}", _ALLOWED)
    paths = [item.image for item in usable]
    name = label_of(path.removesuffix(".json"))
    ids, captions = tuple(item.id for item in usable), tuple(item.captions for item in usable)
    paired = Paired(f"{name}/{taken}" if taken else name, ids, lambda i: read_file(paths[i]), captions)
    paired = paired.telling(
        len(missing), "[image|images] that captions name [is|are] not there", f"such as {missing[0].id}" if missing else ""
    )
    return paired.telling(len(bare), "[image|images] without a caption passed over", f"such as {bare[0].id}" if bare else "")


def _of_split(path: str, items: list[FolderItem], split: str) -> tuple[list[FolderItem], str]:
    """Return the items of a split and its name; all, and nothing, where the file has no splits."""
    stated = [str(item.meta.get("split") or "") for item in items]
    known = Counter(name for name in stated if name)
    if not known:
        if split:
            raise UsageError(f"{path}: no splits in it, {split!r} asked for", "Karpathy's JSON, or a table with a column `split`")
        return items, ""
    wanted = split or ("test" if "test" in known else "")
    if not wanted and len(known) == 1:
        wanted = next(iter(known))
    if wanted not in known:
        listed = ", ".join(f"{name} ({count})" for name, count in known.items())
        raise UsageError(f"{path}: no split {wanted or 'test'!r}", listed, closest(wanted, known) or f"--split {next(iter(known))}")
    return [item for item, name in zip(items, stated, strict=True) if name == wanted], wanted


def _tars(path: str) -> Paired:
    """Return the samples of tars: an image, and `.txt` with a caption on each line, as CLIP_benchmark writes them."""
    files = [file for file in fs.find(path) if file.endswith(".tar") and is_visible(file.rpartition("/")[2])]
    if fs.is_dir(path):
        refuse_mixture(path, [fs.relative(file, path) for file in files], f"'{path.rstrip('/')}/{{}}'")
    groups = [(file, group) for file in files for group in tar.read_index(file)]
    samples = [(file, *_members(file, group)) for file, group in groups]
    captions = []
    for file, _, text in samples:
        lines = decoded(_range(file, text)).splitlines()
        captions.append(tuple(line.strip() for line in lines if line.strip()))
    ids = tuple(fs.printable(image.key) for _, image, _ in samples)
    return Paired(label_of(path), ids, lambda i: _range(samples[i][0], samples[i][1]), tuple(captions))


def _build(path: str, manifest: Manifest) -> Paired:
    """Return the samples of a build; all captions of an image stand in the sidecar, `.txt` has the chosen one."""
    import numpy as np

    ids: list[str] = []
    captions: list[tuple[str, ...]] = []
    hashes: list[str] = []
    places: list[tuple[str, tar.Member]] = []
    for entry in manifest.shards:
        with Shard(manifest, entry) as shard:
            rows = list(_rows(shard))
            for group, (several, sha256) in zip(shard.groups, rows, strict=True):
                image, text = _members(shard.path, group)
                ids.append(group[0].key)
                places.append((shard.path, image))
                own = caption_in(_range(shard.path, text)).strip()
                texts = several or ((own,) if own else ())
                captions.append(texts)
                hashes.append(sha256)
    known = np.array(hashes, dtype="S64") if all(hashes) and hashes else None
    return Paired(label_of(path), tuple(ids), lambda i: _range(*places[i]), tuple(captions), known_hashes=known)


def _rows(shard: Shard) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield (captions, sha256) of each sample from the sidecar; nothing of either where it has no such column."""
    table = shard.sidecar(("captions", "sha256"))
    none: list[None] = [None] * len(shard)
    several = table["captions"].to_pylist() if "captions" in table.column_names else none
    hashes = table["sha256"].to_pylist() if "sha256" in table.column_names else none
    for texts, sha256 in zip(several, hashes, strict=True):
        yield tuple(text.strip() for text in texts or () if text and text.strip()), sha256 or ""


def _members(file: str, group: Sequence[tar.Member]) -> tuple[tar.Member, tar.Member]:
    image = next((member for member in group if member.ext.lower() in IMAGE_EXTENSIONS), None)
    text = next((member for member in group if member.ext == "txt"), None)
    if image is None or text is None:
        found = ", ".join(f".{member.ext}" for member in group[:_SHOWN])
        raise UsageError(f"{file}: sample {group[0].key} has {found}", f"an image ({', '.join(IMAGE_EXTENSIONS)}) and .txt")
    return image, text


def _range(file: str, member: tar.Member) -> bytes:
    content = fs.read_range(file, member.offset, member.size)
    if len(content) != member.size:
        raise RunError(f"{file}: {len(content)} of {member.size} bytes at {member.offset}", advice="shards verify")
    return content
