"""Encode every image of a set once: Pillow decodes, the eval transform shapes, the model embeds.

Transform: shorter side to the model's size (bicubic, antialiased), centre crop, normalise: torchvision's `Resize` and
`CenterCrop` on Pillow images, as open_clip evaluates.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eval.datasets.base import Examples
from shards.core import fs
from shards.core.console import Progress, warn
from shards.core.errors import RunError, UsageError
from shards.upright import open_image, upright_rgb

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from train.models.load import Loaded

# Pixels and "", or an empty array and why the image does not decode.
_Prepared = tuple["np.ndarray", str]
VERSION = 2  # of the transform; raised whenever features change
_SHOWN = 10


@dataclass(frozen=True)
class Encoded:
    """The decodable images of a set with their unit-length features, (n, d) float32, and the list of the others."""

    examples: Examples
    features: np.ndarray
    digest: str
    undecodable: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Encoder:
    """A model on its device, ready to turn sets into features."""

    loaded: Loaded
    device: str = "cpu"
    batch_size: int = 64
    workers: int = 0
    cache: str = ""

    def encode(self, examples: Examples) -> Encoded:
        """Return the features of a set, from the cache where it has them.

        Equal images are encoded once, in the order of their hashes: features do not depend on the container.

        Raises:
            RunError: the model gives values that are no numbers.
            UsageError: no image decodes.
        """
        import numpy as np

        unique, first, inverse = np.unique(examples.hashes, return_index=True, return_inverse=True)
        digest = examples.digest
        path = fs.join(self.cache, f"{self.loaded.digest[:16]}-{digest[:16]}-v{VERSION}.npz") if self.cache else ""
        stored = _read_cache(path, unique) if path else None
        if stored is None:
            stored = self._encode(examples, first)
            if path:
                _write_cache(path, unique, *stored)
        features, why = stored
        good = why[inverse] == ""
        bad = tuple((examples.ids[i], str(why[inverse[i]])) for i in np.flatnonzero(~good))
        _report(examples.name, len(examples), bad)
        return Encoded(examples.take(np.flatnonzero(good)), features[inverse[good]], digest, bad)

    def _encode(self, examples: Examples, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return features, one row per position (zeros where undecodable), and why each is undecodable ("" if it is not)."""
        import numpy as np
        import torch

        self.loaded.model.to(self.device).eval()
        why: list[str] = []
        parts: list[np.ndarray] = []
        with Progress(f"encode {examples.name}", len(positions), "images") as progress, torch.inference_mode():
            for batch in self._batches(examples, positions):
                why += [problem for _, problem in batch]
                if pixels := [p for p, problem in batch if not problem]:
                    parts.append(self._embed(pixels))
                progress.add(len(batch))
        reasons = np.array(why, dtype=str)
        features = np.zeros((len(why), parts[0].shape[1] if parts else 0), np.float32)
        if parts:
            features[reasons == ""] = np.concatenate(parts)
        return features, reasons

    def _embed(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        import numpy as np
        import torch

        images = torch.from_numpy(np.stack(pixels)).to(self.device).permute(0, 3, 1, 2).float().div_(255)
        mean = torch.tensor(self.loaded.mean, device=self.device)[:, None, None]
        std = torch.tensor(self.loaded.std, device=self.device)[:, None, None]
        encoded = self.loaded.embed_images((images - mean) / std).cpu().numpy()
        if not np.isfinite(encoded).all():
            raise RunError("the model gives image features that are no finite numbers", "a model whose training has not diverged")
        return encoded

    def _batches(self, examples: Examples, positions: np.ndarray) -> Iterator[list[_Prepared]]:
        """Yield batches in order, decoded by threads, two batches ahead of the model."""
        size = self.loaded.image_size

        def start(pool: ThreadPoolExecutor, at: int) -> list[Future[_Prepared]]:
            return [pool.submit(_prepare, examples, int(i), size) for i in positions[at : at + self.batch_size]]

        with ThreadPoolExecutor(self.workers or len(os.sched_getaffinity(0))) as pool:
            ahead: list[list[Future[_Prepared]]] = []
            for at in range(0, len(positions), self.batch_size):
                ahead.append(start(pool, at))
                if len(ahead) > 2:
                    yield [future.result() for future in ahead.pop(0)]
            for futures in ahead:
                yield [future.result() for future in futures]


def _prepare(examples: Examples, i: int, size: int) -> _Prepared:
    import numpy as np

    try:
        return transform(decode(examples.read(i)), size), ""
    except Exception as error:  # noqa: BLE001  Pillow's decoders raise almost anything on hostile bytes; the image becomes a row
        return np.zeros(0, np.uint8), f"{type(error).__name__}: {error}"


def decode(content: bytes) -> Image.Image:
    """Return an image upright and in sRGB: first frame, EXIF orientation applied, alpha on white, as training sees it.

    Raises:
        UndecodableError: it is no whole image of a known format.
    """
    return upright_rgb(open_image(content))


def transform(image: Image.Image, size: int) -> np.ndarray:
    """Return uint8 pixels (size, size, 3): shorter side resized to `size`, centre cropped."""
    import numpy as np
    from PIL import Image

    width, height = image.size
    resized = (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
    shaped = image.resize(resized, Image.Resampling.BICUBIC)
    left, top = round((resized[0] - size) / 2), round((resized[1] - size) / 2)
    return np.asarray(shaped.crop((left, top, left + size, top + size)))


def _report(name: str, n: int, bad: tuple[tuple[str, str], ...]) -> None:
    if not bad:
        return
    listed = "".join(f"\n  {image}: {why}" for image, why in bad[:_SHOWN]) + ("\n  …" if len(bad) > _SHOWN else "")
    if len(bad) == n:
        raise UsageError(f"{name}: none of the {n} images decodes{listed}", "images that Pillow opens")
    warn(f"{name}: {len(bad)} of {n} images do not decode; numbers are over the other {n - len(bad)}{listed}")


def _read_cache(path: str, unique: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    import numpy as np

    if not fs.exists(path):
        return None
    with fs.open_read(path) as file, np.load(file, allow_pickle=False) as stored:
        if not np.array_equal(stored["hashes"], unique):
            return None  # another set whose digest begins alike
        return stored["features"], stored["why"]


def _write_cache(path: str, unique: np.ndarray, features: np.ndarray, why: np.ndarray) -> None:
    import numpy as np

    fs.make_dirs(path.rpartition("/")[0] or ".")
    with fs.atomic_write(path) as file:
        np.savez(file, hashes=unique, features=features, why=why)
