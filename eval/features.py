"""Encode every image of a set once: the training decoder shapes it, the model embeds it.

Transform: shorter side to the model's size (bicubic, antialiased), centre crop, normalise: torchvision's `Resize` and
`CenterCrop` on Pillow images, as open_clip evaluates, to within half a level of 255 (mean over an image). A plain JPEG is decoded
by libjpeg-turbo, all else by Pillow; both are upright and in sRGB, as training sees them.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from eval.datasets.base import Examples
from shards.core import fs
from shards.core.console import Progress, warn
from shards.core.engines.local import threads_of
from shards.core.errors import RunError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import torch

VERSION = 3  # of the transform; raised whenever features change
_SHOWN = 10
# Pixels of the crop that are made around it and cut off again, where the image goes on there: bicubic reads 2 to each side.
_BORDER = 2
# A JPEG that is decoded at a smaller scale must leave so many times the crop: 440 photos differ from a full decode by 0.13 levels of
# 255 (mean), the worst one by 0.54 at 16 pixels and 0.23 at 24; from 4 on by 0.23 and 0.86, from 1.5 on (as in training) by 1.2 and 4.
_MARGIN = 8


class Source(Protocol):
    """What gives features: a model as `train.models.load` has it, its layers, or raw pixels."""

    @property
    def model(self) -> Any:
        """The module whose device and mode are set."""

    @property
    def image_size(self) -> int:
        """Pixels to a side."""

    @property
    def mean(self) -> tuple[float, ...]:
        """What is subtracted from images, per channel."""

    @property
    def std(self) -> tuple[float, ...]:
        """What images are divided by, per channel."""

    @property
    def digest(self) -> str:
        """What features depend on, in one word."""

    def embed_images(self, images: torch.Tensor) -> torch.Tensor:
        """Return features (n, d) float32 of normalised images (n, 3, S, S)."""


@dataclass(frozen=True)
class Encoded:
    """The decodable images of a set with their features, (n, d) float32, and the list of the others.

    A model's features have unit length. `positions` are the images' places in the set that was encoded; None stands for all.
    """

    examples: Examples
    features: np.ndarray
    digest: str
    undecodable: tuple[tuple[str, str], ...] = ()
    positions: np.ndarray | None = None


@dataclass(frozen=True)
class Encoder:
    """A source of features on its device, ready to turn sets into features."""

    loaded: Any  # a Source; protocols that read text need a `train.models.load.Loaded`
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
        places = np.flatnonzero(good)
        return Encoded(examples.take(places), features[inverse[good]], digest, bad, places)

    def _encode(self, examples: Examples, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return features, one row per position (zeros where undecodable), and why each is undecodable ("" if it is not)."""
        import numpy as np
        import torch

        self.loaded.model.to(self.device).eval()
        why: list[str] = []
        parts: list[np.ndarray] = []
        with Progress(f"encode {examples.name}", len(positions), "images") as progress, torch.inference_mode():
            for pixels, problems in self.batches(examples, positions):
                why += problems
                good = np.array([not problem for problem in problems])
                if good.any():
                    parts.append(self.embed(pixels if good.all() else pixels[good]))
                progress.add(len(problems))
        reasons = np.array(why, dtype=str)
        features = np.zeros((len(why), parts[0].shape[1] if parts else 0), np.float32)
        if parts:
            features[reasons == ""] = np.concatenate(parts)
        return features, reasons

    def embed(self, pixels: np.ndarray) -> np.ndarray:
        """Return the features of pixels (n, S, S, 3) uint8; their order in memory is the one that convolutions want."""
        import numpy as np

        source: Source = self.loaded
        encoded = source.embed_images(self.normalised(pixels)).cpu().numpy()
        if not np.isfinite(encoded).all():
            raise RunError("the model gives image features that are no finite numbers", "a model whose training has not diverged")
        return encoded

    def normalised(self, pixels: np.ndarray) -> torch.Tensor:
        """Return what the model sees of pixels (n, S, S, 3) uint8: (n, 3, S, S) float32 on its device."""
        import torch

        source: Source = self.loaded
        images = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float()
        mean = 255 * torch.tensor(source.mean, device=self.device)[:, None, None]
        std = 255 * torch.tensor(source.std, device=self.device)[:, None, None]
        return images.sub_(mean).div_(std)

    def batches(self, examples: Examples, positions: np.ndarray) -> Iterator[tuple[np.ndarray, list[str]]]:
        """Yield batches in order, (n, S, S, 3) uint8 and why each image does not decode, two batches ahead of the model."""
        import numpy as np

        size = self.loaded.image_size

        def start(pool: ThreadPoolExecutor, at: int) -> tuple[np.ndarray, list[Future[str]]]:
            chosen = positions[at : at + self.batch_size]
            out = np.empty((len(chosen), size, size, 3), np.uint8)
            return out, [pool.submit(_prepare, examples, int(i), out[row]) for row, i in enumerate(chosen)]

        with ThreadPoolExecutor(threads_of(self.workers)) as pool:
            ahead: list[tuple[np.ndarray, list[Future[str]]]] = []
            for at in range(0, len(positions), self.batch_size):
                ahead.append(start(pool, at))
                if len(ahead) > 2:
                    pixels, futures = ahead.pop(0)
                    yield pixels, [future.result() for future in futures]
            for pixels, futures in ahead:
                yield pixels, [future.result() for future in futures]


def _prepare(examples: Examples, i: int, out: np.ndarray) -> str:
    """Fill in the pixels of an image; return why that cannot be done, or nothing."""
    try:
        out[:] = shaped(examples.read(i), out.shape[0])
    except Exception as error:  # noqa: BLE001  decoders raise almost anything on hostile bytes; the image becomes a row
        return f"{type(error).__name__}: {error}"
    return ""


def shaped(content: bytes, size: int) -> np.ndarray:
    """Return uint8 pixels (size, size, 3) of encoded bytes: shorter side resized to `size`, centre cropped.

    Raises:
        UndecodableError: they are no whole image of a known format.
    """
    import numpy as np

    from train.data.decode.cpu import EncodedImage
    from train.data.decode.resample import BICUBIC, resize_into

    image = EncodedImage(content)
    shorter = min(image.height, image.width)
    rows, columns = int(size * image.height / shorter), int(size * image.width / shorter)
    top, left = round((rows - size) / 2), round((columns - size) / 2)
    first_row, first_column = max(top - _BORDER, 0), max(left - _BORDER, 0)
    last_row, last_column = min(top + size + _BORDER, rows), min(left + size + _BORDER, columns)
    out = np.empty((last_row - first_row, last_column - first_column, 3), np.uint8)
    factor = _factor(shorter, size) if image.plain else 1
    pixels = image.pixels(factor)
    # Pixels of the image for one of the crop. A scaled image's sides are rounded up, so the window may end a part of a pixel later.
    tall, wide = image.height / factor / rows, image.width / factor / columns
    height = min(out.shape[0] * tall, pixels.shape[0] - first_row * tall)
    width = min(out.shape[1] * wide, pixels.shape[1] - first_column * wide)
    resize_into(out, pixels, first_row * tall, first_column * wide, height, width, BICUBIC)
    return out[top - first_row :, left - first_column :][:size, :size]


def _factor(shorter: int, size: int) -> int:
    """Return the largest of 1, 2, 4, 8 at which a JPEG may be decoded smaller."""
    factor = 1
    while factor < 8 and shorter >= 2 * factor * _MARGIN * size:
        factor *= 2
    return factor


def _report(name: str, n: int, bad: tuple[tuple[str, str], ...]) -> None:
    if not bad:
        return
    listed = "".join(f"\n  {image}: {why}" for image, why in bad[:_SHOWN]) + ("\n  …" if len(bad) > _SHOWN else "")
    if len(bad) == n:
        raise UsageError(f"{name}: none of the {n} images decodes{listed}", "images that Pillow opens")
    warn(f"{name}: {len(bad)} of {n} images do not decode; numbers are over the other {n - len(bad)}{listed}")


def _read_cache(path: str, unique: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the features and reasons of a cache; None where it has none, or where the file is torn."""
    import zipfile
    import zlib

    import numpy as np

    if not fs.exists(path):
        return None
    try:
        with fs.open_read(path) as file, np.load(file, allow_pickle=False) as stored:
            if not np.array_equal(stored["hashes"], unique):
                return None  # another set whose digest begins alike
            features, why = stored["features"], stored["why"]
    except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, NotImplementedError, AttributeError) as error:
        warn(f"{path}: a torn cache, made anew: {str(error)[:100]}")
        return None
    if features.ndim != 2 or len(features) != len(unique) or why.shape != unique.shape:
        warn(f"{path}: a torn cache, made anew")
        return None
    return features, why


def _write_cache(path: str, unique: np.ndarray, features: np.ndarray, why: np.ndarray) -> None:
    import numpy as np

    fs.make_dirs(path.rpartition("/")[0] or ".")
    with fs.atomic_write(path) as file:
        np.savez(file, hashes=unique, features=features, why=why)
