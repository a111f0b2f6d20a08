"""Images that are kept decoded: the same pixels, decoded once, within a number of bytes; and erased rectangles."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from shards.manifest import read_manifest
from tests.conftest import draw
from train.data.augment.params import ERASED_AREA, Augment, Window, parameters, uniforms_of_batch
from train.data.augment.photometric import Photometric
from train.data.batch import Needs
from train.data.decode import cpu
from train.data.decode.cpu import EncodedImage
from train.data.decode.kept import Store
from train.data.loader import Loader

WINDOWS = [Window(0, 0, 40, 30), Window(3, 2, 64, 64), Window(10, 10, 20, 50)]


def png(i: int) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.open(io.BytesIO(draw(i)[0])).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize("encoded", [lambda i: draw(i)[0], png])
def test_kept_images_give_the_same_crops_and_are_decoded_once(encoded: Callable[[int], bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(10**7)
    decodes: list[int] = []
    real = EncodedImage.pixels

    def counted(self: Any, factor: int = 1, *, fast: bool = False) -> Any:
        decodes.append(factor)
        return real(self, factor, fast=fast)

    monkeypatch.setattr(cpu.EncodedImage, "pixels", counted)
    kept = [np.empty((16, 16, 3), np.uint8) for _ in range(9)]
    plain = [np.empty((16, 16, 3), np.uint8) for _ in range(9)]
    for at in range(9):
        store.image((0, at % 3), lambda at=at: encoded(at % 3)).crops_into([kept[at]], [WINDOWS[at // 3]], [1])  # type: ignore[misc]
    factors = len(decodes)
    for at in range(9):
        EncodedImage(encoded(at % 3)).crops_into([plain[at]], [WINDOWS[at // 3]], [1])
    assert all((a == b).all() for a, b in zip(kept, plain, strict=True))
    assert factors < len(decodes) - factors == 9  # one for each scale of an image, not one for each crop


def test_bytes_are_bounded() -> None:
    side = EncodedImage(draw(0)[0])
    each = side.height * side.width * 3
    store, out = Store(2 * each + 10), np.empty((16, 16, 3), np.uint8)
    for at in range(8):
        store.image((0, at), lambda at=at: draw(at)[0]).crops_into([out], [Window(0, 0, 16, 16)], [1])  # type: ignore[misc]
    assert store.bytes == 2 * each


def test_a_loader_gives_the_same_batches(make_shards: Callable[..., str]) -> None:
    manifest = read_manifest(make_shards(20))
    batches = []
    for keep in (0, 10**6, 30_000):
        needs = Needs(views=(Augment(scale=(0.1, 1.0)), Augment(scale=(0.5, 1.0))))
        settings: dict[str, Any] = {"batch_size": 8, "image_size": 24, "seed": 1, "needs": needs, "workers": 2, "keep_decoded": keep}
        with contextlib.closing(Loader([(manifest, None)], **settings).batches(0)) as stream:  # type: ignore[type-var]
            batches.append([[view.images.clone() for view in next(stream).views] for _ in range(7)])
    for other in batches[1:]:
        assert all(torch.equal(a, b) for one, two in zip(batches[0], other, strict=True) for a, b in zip(one, two, strict=True))


def test_rectangles_are_erased_as_timm_draws_them() -> None:
    """Areas uniform from 2 to 33%, log-uniform ratios, places inside; a quarter of the samples; everything else is untouched."""
    n, side = 4_000, 64
    augment = Augment(erase=0.25)
    params = parameters(augment, uniforms_of_batch(0, [0] * n, [f"{i:032x}" for i in range(n)]))
    images = torch.full((n, 3, side, side), 255, dtype=torch.uint8)
    shaped = Photometric(augment)(images, params)
    gone = (shaped == 0).all(dim=1)
    share = gone.float().mean(dim=(1, 2)).numpy()
    hit = share > 0
    assert hit.mean() == pytest.approx(0.25, abs=0.03)
    assert share[hit].min() > ERASED_AREA[0] * 0.8
    assert share[hit].max() < ERASED_AREA[1] * 1.05
    assert share[hit].mean() == pytest.approx(sum(ERASED_AREA) / 2, abs=0.01)
    tall = gone.any(dim=2).sum(dim=1).numpy()[hit]
    wide = gone.any(dim=1).sum(dim=1).numpy()[hit]
    assert (tall * wide == gone.sum(dim=(1, 2)).numpy()[hit]).all()  # rectangles
    assert np.log(tall / wide).mean() == pytest.approx(0, abs=0.1)
    assert (shaped[~torch.from_numpy(hit)] == shaped[~torch.from_numpy(hit)][0, :, :1, :1]).all()
    assert not (parameters(Augment(), uniforms_of_batch(0, [0], ["0" * 32])).erased[:, 0] > 0).any()
