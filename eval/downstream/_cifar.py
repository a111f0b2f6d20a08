"""CIFAR-10 and CIFAR-100: pickled arrays, which become PNG; the corrupted twins are arrays of five severities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from eval.datasets.base import Examples
from eval.downstream import _layout
from eval.downstream.base import TEST, TRAIN, check_split
from eval.png import png_of
from shards.core import fs
from shards.core.errors import TornFileError

if TYPE_CHECKING:
    import numpy as np

SIDE = 32
SEVERITIES = 5
PIXELS = 3 * SIDE * SIDE
# The corruptions of Hendrycks and Dietterich 2019, with their four extra ones.
CORRUPTIONS = (
    *("brightness", "contrast", "defocus_blur", "elastic_transform", "fog", "frost", "gaussian_blur", "gaussian_noise", "glass_blur"),
    *("impulse_noise", "jpeg_compression", "motion_blur", "pixelate", "saturate", "shot_noise", "snow", "spatter", "speckle_noise"),
    "zoom_blur",
)
SHIFTS = {
    f"{name}-{severity}": f"test images under {name.replace('_', ' ')} of severity {severity} of {SEVERITIES}"
    for name in CORRUPTIONS
    for severity in range(1, SEVERITIES + 1)
}


@dataclass(frozen=True)
class Cifar:
    """One of the two sets: its folder, its files, and the keys of what its pickles hold."""

    name: str
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    meta: str
    labels: str
    names: str
    corrupted: str
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    metric: str
    layout: str

    def splits(self, path: str) -> list[str]:
        """Return train and test, and the corruptions of a folder `CIFAR-…-C` that stands in the path or beside it.

        Raises:
            UsageError: the files are not there.
        """
        folder = self._corrupted(path)
        shifted = [name for name in SHIFTS if folder and fs.exists(fs.join(folder, f"{name.rpartition('-')[0]}.npy"))]
        return [TRAIN, TEST, *shifted]

    def load(self, path: str, split: str) -> Examples:
        """Read one of them.

        Raises:
            UsageError: no such split, no such files, or classes in another order.
            TornFileError: a file is cut off.
        """
        check_split(self.splits(path), path, split)
        root = self._root(path)
        meta = fs.join(root, self.meta)
        names = _layout.variable(_layout.read_pickle(meta), meta, self.names)
        _layout.check_order(meta, self.classes, [name.decode() if isinstance(name, bytes) else str(name) for name in names])
        if split in SHIFTS:
            return self._shifted(self._corrupted(path), split)
        files = self.train if split == TRAIN else self.test
        parts = [self._batch(fs.join(root, name)) for name in files]
        return self._examples(split, parts)

    def _root(self, path: str) -> str:
        return _layout.root_of(path, self.layout, (*self.train, *self.test, self.meta), (self.folder, f"{self.name}/{self.folder}"))

    def _corrupted(self, path: str) -> str:
        root = self._root(path)
        around = (path.rstrip("/"), root, fs.join(root, ".."), fs.join(path, ".."))
        return next((fs.join(folder, self.corrupted) for folder in around if fs.is_dir(fs.join(folder, self.corrupted))), "")

    def _batch(self, path: str) -> tuple[np.ndarray, np.ndarray]:
        """Return (pixels, labels) of a batch: (n, 32, 32, 3) uint8 and (n,) int64."""
        import numpy as np

        content = _layout.read_pickle(path)
        data = np.asarray(_layout.variable(content, path, "data"))
        labels = np.asarray(_layout.variable(content, path, self.labels))
        if data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != PIXELS or labels.shape != data.shape[:1]:
            found = f"{path}: data {data.dtype} {data.shape}, labels {labels.shape}"
            raise TornFileError(found, f"uint8 (n, {PIXELS}) and (n,)", "a whole file, as it is published")
        return data.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1), labels.astype(np.int64)

    def _shifted(self, folder: str, split: str) -> Examples:
        """Return one severity of a corruption; the file has the test images five times, mildest first."""
        name, _, severity = split.rpartition("-")
        path = fs.join(folder, f"{name}.npy")
        pixels, labels = _layout.read_array(path), _layout.read_array(fs.join(folder, "labels.npy"))
        if pixels.ndim != 4 or pixels.shape[1:] != (SIDE, SIDE, 3) or len(pixels) != len(labels) or len(pixels) % SEVERITIES:
            found = f"{path}: {pixels.shape}, {len(labels)} labels"
            raise TornFileError(
                found, f"(n, {SIDE}, {SIDE}, 3), n labels, n a multiple of {SEVERITIES}", "whole files, as they are published"
            )
        n = len(pixels) // SEVERITIES
        part = slice((int(severity) - 1) * n, int(severity) * n)
        return self._examples(split, [(pixels[part], labels[part].astype("int64"))])

    def _examples(self, split: str, parts: list[tuple[np.ndarray, np.ndarray]]) -> Examples:
        import numpy as np

        pixels = [part for part, _ in parts]
        ends = np.cumsum([len(part) for part in pixels])
        labels = np.concatenate([part for _, part in parts])

        def read(i: int) -> bytes:
            number = int(np.searchsorted(ends, i, side="right"))
            start = int(ends[number]) - len(pixels[number])
            return png_of(np.asarray(pixels[number][i - start]))

        ids = tuple(f"{split}/{i:05d}" for i in range(len(labels)))
        return Examples(self.name, self.classes, ids, labels, read, self.templates, self.metric)
