"""Captions in files beside their images: `x.txt`, `x.caption`, `x.json`, or `x.jpg.txt`, in any letter case and encoding.

Each line of a text is a caption. A text wins over a JSON file, whose other keys are extras.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from shards.core import fs
from shards.image_names import base, is_image, plain, stem
from shards.tables.json_records import parse
from shards.tables.notes import note
from shards.tables.text import decoded
from shards.tables.values import captions_of, label_of

TEXTS = (".txt", ".caption", ".captions", ".cap")
SUFFIXES = (*TEXTS, ".json")
CAPTION_KEYS = ("caption", "captions", "text", "title", "description", "sentence", "comment", "alt", "caption0")
_STATISTICS = re.compile(r"\d+_stats\.json")  # img2dataset's, one for each of its tables
_ABOUT = ("readme", "license", "licence", "requirements", "classes", "labels")


@dataclass
class Sidecar:
    """What stands beside one image. `problem` says why it cannot be read."""

    captions: list[str] = field(default_factory=list)
    licence: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


class Sidecars:
    """The sidecars among a folder's files, and the image that each belongs to."""

    def __init__(self, root: str, names: Iterable[str]) -> None:
        self.root = root
        listed = list(names)
        self.notes = [name for name in listed if name.lower().endswith(SUFFIXES) and not is_image(name)]
        listed_names = set(listed)
        owners: dict[str, list[str]] = {}
        for image in (name for name in listed if is_image(name)):
            for key in dict.fromkeys((plain(stem(image)), plain(image))):
                owners.setdefault(key, []).append(image)
        self.of: dict[str, list[str]] = {}
        self.alone: list[str] = []
        for name in self.notes:
            images = owners.get(plain(stem(name)), [])
            exact = [image for image in images if stem(name) in (image, stem(image))]
            for image in exact or images:
                self.of.setdefault(image, []).append(name)
            second = name.lower().endswith(".json") and stem(name) + ".txt" in listed_names
            is_about = base(name).lower().startswith(_ABOUT) or _STATISTICS.fullmatch(base(name))
            if not images and not second and not is_about:
                self.alone.append(name)

    def beside(self, image: str) -> Sidecar:
        """Return what stands beside an image."""
        sidecar = Sidecar()
        notes = self.of.get(image, [])
        for name in notes:
            if name.lower().endswith(".json"):
                self._read_json(name, sidecar)
        texts = [name for name in notes if not name.lower().endswith(".json")]
        if texts:
            sidecar.captions, sidecar.problem = [], ""
        for name in texts:
            self._read_text(name, sidecar)
        return sidecar

    def _read_text(self, name: str, sidecar: Sidecar) -> None:
        raw = self._bytes(name, sidecar)
        lines = [line for line in decoded(raw).splitlines() if line.strip()] if raw.strip() else []
        if len(lines) > 1:
            note("[sidecar|sidecars] with several lines, each taken for a caption", name)
        for line in lines:
            sidecar.captions += captions_of(line)

    def _read_json(self, name: str, sidecar: Sidecar) -> None:
        raw = self._bytes(name, sidecar)
        if sidecar.problem:
            return
        try:
            content = parse(decoded(raw))
        except (ValueError, RecursionError) as error:
            sidecar.problem = f"{name}: not JSON: {error}"
            return
        if not isinstance(content, dict):
            sidecar.captions += _captions(content)
            return
        key = next((k for k in CAPTION_KEYS if content.get(k)), "")
        sidecar.captions += _captions(content.get(key))
        sidecar.licence = label_of(content.get("license") or content.get("licence"))
        sidecar.meta = {k: v for k, v in content.items() if k != key}

    def _bytes(self, name: str, sidecar: Sidecar) -> bytes:
        try:
            return fs.read_bytes(fs.join(self.root, name))
        except OSError as error:
            sidecar.problem = f"{name} cannot be read: {error.strerror or error}"
            return b""


def _captions(value: Any) -> list[str]:
    return [text for text in captions_of(value) if text.strip()]
