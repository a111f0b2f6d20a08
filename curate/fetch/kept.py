"""What an interrupted run has fetched of a shard: its unfinished tars, whose samples are not asked for again."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from dataclasses import dataclass
from typing import Any

from curate.fetch.normalise import shard_name
from curate.fetch.pictures import refusal
from curate.fetch.pool import OWN
from shards import tar
from shards.core import fs
from shards.core.errors import TornFileError
from shards.sample import IMAGE_EXTENSIONS


class KeptImage(io.BytesIO):
    """The bytes of a picture as they stood in an unfinished tar, with what stood beside them."""

    def __init__(self, content: bytes, facts: dict[str, Any]) -> None:
        super().__init__(content)
        self.facts = facts


@dataclass(frozen=True)
class KeptSample:
    """Where a sample lies in an unfinished tar: its picture, and the JSON of its facts."""

    path: str
    image: tar.Member
    facts: tar.Member

    def read(self) -> KeptImage | None:
        """Return the picture, or None where a machine that went down has left something else in its place."""
        try:
            facts = json.loads(fs.read_range(self.path, self.facts.offset, self.facts.size))
            content = fs.read_range(self.path, self.image.offset, self.image.size)
            is_original = facts["width"] is None
            whole = hashlib.sha256(content).hexdigest() == facts["sha256"] if is_original else not refusal(content, whole=True)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return KeptImage(content, facts) if whole else None


def adopt(pool: str, unfinished: str, start: str = "") -> None:
    """Move the tars in the folders of unfinished work, those whose names have a start, to where the shards' next tasks look for them."""
    folders = [path for name in fs.names(unfinished) if name.startswith(start) and fs.is_dir(path := fs.join(unfinished, name))]
    for folder in folders:
        for name in fs.names(folder):
            stem, ext = os.path.splitext(name)
            if ext != ".tar" or not stem.isdigit():
                continue
            number = len(_tars(pool, int(stem)))
            fs.make_dirs(_folder(pool))
            os.replace(fs.join(folder, name), fs.join(_folder(pool), f"{stem}-{number}.tar"))


def kept_samples(pool: str, shard: int, first_key: int) -> dict[int, KeptSample]:
    """Return the whole samples of a shard's unfinished tars, by their place in the shard."""
    samples: dict[int, KeptSample] = {}
    for path in _tars(pool, shard):
        size = fs.size(path)
        images: dict[str, tar.Member] = {}
        with contextlib.suppress(TornFileError), fs.open_read(path) as file:
            for member in tar.walk(file, path):
                is_whole = member.offset + member.size <= size
                if is_whole and member.ext.lower() in IMAGE_EXTENSIONS:
                    images[member.key] = member
                elif is_whole and member.ext == "json" and member.key in images and member.key.isdigit():
                    samples[int(member.key) - first_key] = KeptSample(path, images[member.key], member)
    return samples


def forget(pool: str, shard: int) -> None:
    """Remove a shard's unfinished tars: the shard is done."""
    for path in _tars(pool, shard):
        fs.remove(path)


def _folder(pool: str) -> str:
    return fs.join(pool, OWN, "unfinished")


def _tars(pool: str, shard: int) -> list[str]:
    start = shard_name(shard) + "-"
    return [fs.join(_folder(pool), name) for name in fs.names(_folder(pool)) if name.startswith(start)]
