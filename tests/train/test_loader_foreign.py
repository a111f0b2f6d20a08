"""Foreign tars: keys that repeat, tars written anew under an old index, tars that go, other image formats, captions nowhere."""

from __future__ import annotations

import contextlib
import io
import itertools
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import encoded, photo
from PIL import Image

from shards import cli
from shards.core.errors import RunError
from shards.manifest import read_manifest
from train.data.augment.params import Augment, uniforms, window
from train.data.batch import Batch, Needs
from train.data.decode.cpu import decode
from train.data.loader import Loader

MakeShards = Callable[..., str]
MILD = Augment(scale=(0.3, 1.0))


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as file:
        for name, content in members:
            about = tarfile.TarInfo(name)
            about.size = len(content)
            file.addfile(about, io.BytesIO(content))


def repeated_keys(folder: Path, cut: tuple[int, int] | None = None) -> dict[tuple[int, int], bytes]:
    """Write 4 tars of 16 samples whose keys are 0000 to 0015 in each; `cut` is a (tar, row) cut in half. Return the pictures."""
    folder.mkdir()
    pictures = {}
    for number in range(4):
        members = []
        for row in range(16):
            picture = encoded(photo(64, 64, seed=100 * number + row), quality=90)
            picture = picture[: len(picture) // 2] if (number, row) == cut else picture
            pictures[number, row] = picture
            members += [(f"{row:04d}.jpg", picture), (f"{row:04d}.txt", f"tar {number} row {row}".encode())]
        write_tar(folder / f"{number:05d}.tar", members)
    assert cli.main(["index", str(folder)]) == 0
    return pictures


def loader(folder: Path | str, **options: Any) -> Loader:
    settings = {"batch_size": 16, "image_size": 24, "seed": 0, "workers": 2, "needs": Needs(views=(MILD,), captions=True), **options}
    return Loader([(read_manifest(str(folder)), None)], **settings)


def take(source: Loader, n: int, start: int = 0) -> list[Batch]:
    with contextlib.closing(source.batches(start)) as batches:
        return list(itertools.islice(batches, n))


def test_all_pictures_of_repeated_keys_are_seen_each_with_its_own_crop(tmp_path: Path) -> None:
    pictures = repeated_keys(tmp_path / "set", cut=(0, 3))
    source = loader(tmp_path / "set")
    batches = take(source, 4)
    assert [(bad.position, bad.uid) for bad in source.bad.values()] == [(3, "0003")]
    windows: dict[str, set[tuple[int, ...]]] = {}
    seen = set()
    for batch in batches:
        for row, position in enumerate(batch.positions.tolist()):
            place = divmod(position, 16)
            assert batch.uids[row] == f"{place[1]:04d}"
            assert batch.captions[row] == f"tar {place[0]} row {place[1]}"
            expected = decode(pictures[place], batch.windows[row], 24)
            assert np.array_equal(batch.images[row].permute(1, 2, 0).numpy(), expected)
            windows.setdefault(batch.uids[row], set()).add(tuple(batch.windows[row]))
            seen.add(place)
    assert seen == set(pictures) - {(0, 3)}
    assert sum(batch.replaced for batch in batches) == 1
    # Equal keys have crops of their own: four pictures, four windows (of the cut one's key three).
    assert {uid for uid, crops in windows.items() if len(crops) < 4} <= {"0003"}
    assert len(windows["0003"]) == 3


def test_repeated_keys_are_the_same_with_any_workers_and_after_a_resume(tmp_path: Path) -> None:
    repeated_keys(tmp_path / "set", cut=(2, 7))
    first = loader(tmp_path / "set", workers=1)
    whole = take(first, 8)
    resumed = loader(tmp_path / "set", workers=5)
    resumed.restore(list(first.bad.values()))
    for source, start in ((loader(tmp_path / "set", workers=8), 0), (resumed, 3)):
        for one, two in zip(take(source, 8 - start, start), whole[start:], strict=True):
            assert (one.positions.tolist(), one.captions, one.windows) == (two.positions.tolist(), two.captions, two.windows)
            assert np.array_equal(one.images.numpy(), two.images.numpy())


def test_random_numbers_come_from_digest_shard_and_position(tmp_path: Path) -> None:
    repeated_keys(tmp_path / "set")
    source = loader(tmp_path / "set")
    digest = read_manifest(str(tmp_path / "set")).digest
    for batch in take(source, 2):
        for row, position in enumerate(batch.positions.tolist()):
            number, inside = divmod(position, 16)
            drawn = uniforms(0, int(batch.epoch[row]), f"{digest}:{number:05d}.tar:{inside}")
            assert batch.windows[row] == window(MILD, drawn, 64, 64)


def rewritten(path: Path, change: Callable[[list[tuple[str, bytes]]], list[tuple[str, bytes]]]) -> None:
    """Write a tar anew, with other members, and leave its index alone."""
    with tarfile.open(path) as file:
        members = [(m.name, file.extractfile(m).read()) for m in file]  # type: ignore[union-attr]
    write_tar(path, change(members))


def reversed_samples(members: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    pairs = [members[i : i + 2] for i in range(0, len(members), 2)]
    return [member for pair in reversed(pairs) for member in pair]


def one_longer(members: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """The picture in the middle has one byte more: what follows may stay where it was."""
    middle = len(members) // 4 * 2
    return [(name, content + b"\0" if i == middle else content) for i, (name, content) in enumerate(members)]


def other_names(members: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    return [("9" + name[1:], content) for name, content in members]


@pytest.mark.parametrize("engine", ["cpu", "dali"])
@pytest.mark.parametrize("change", [reversed_samples, one_longer, other_names, lambda members: members[2:]])
def test_a_tar_written_anew_under_an_old_index_is_an_error(tmp_path: Path, change: Any, engine: str) -> None:
    pictures = repeated_keys(tmp_path / "set")
    rewritten(tmp_path / "set" / "00002.tar", change)
    source = loader(tmp_path / "set", engine=engine, batch_size=1)
    good = set()
    with pytest.raises(RunError, match=r"00002\.tar") as error, contextlib.closing(source.batches()) as batches:
        for batch in itertools.islice(batches, 64):
            place = divmod(int(batch.positions[0]), 16)
            expected = decode(pictures[place], batch.windows[0], 24)
            assert np.abs(batch.images[0].permute(1, 2, 0).numpy().astype(int) - expected).mean() <= 2
            good.add(place)
    assert "shards verify" in error.value.advice
    assert source.bad == {}


def test_pictures_of_equal_sizes_in_another_order_are_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    members = []
    for row in range(16):
        members += [(f"{row:04d}.jpg", encoded(photo(16, 16, row)).ljust(2000, b"\0")), (f"{row:04d}.txt", b"%02d" % row)]
    write_tar(folder / "00000.tar", members)
    assert cli.main(["index", str(folder)]) == 0
    rewritten(folder / "00000.tar", reversed_samples)
    with pytest.raises(RunError, match=r"before the bytes of member .*\d{4}\.jpg.* stands .*\d{4}\.jpg"):
        take(loader(folder, batch_size=1), 16)


@pytest.mark.parametrize("process", [False, True])
def test_a_tar_that_goes_is_named(tmp_path: Path, process: bool) -> None:
    repeated_keys(tmp_path / "set")
    (tmp_path / "set" / "00001.tar").unlink()
    with pytest.raises(RunError, match=r"00001\.tar: No such file or directory"):
        take(loader(tmp_path / "set", process=process), 4)


def test_a_tar_that_was_cut_short_is_named(tmp_path: Path) -> None:
    repeated_keys(tmp_path / "set")
    path = tmp_path / "set" / "00003.tar"
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(RunError, match=r"00003\.tar: \d+ of \d+ bytes at \d+"):
        take(loader(tmp_path / "set"), 4)


@pytest.mark.parametrize("engine", ["cpu", "dali"])
def test_members_of_other_formats_and_none(tmp_path: Path, engine: str) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    members = []
    for row in range(16):
        kind, ext = (("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"), ("JPEG", "jpeg"))[row % 4]
        content = encoded(photo(40, 30, row), kind)
        members += [(f"s{row:02d}.txt", f"row {row}".encode())]
        members += [] if row == 9 else [(f"s{row:02d}.{ext}", content)]
    write_tar(folder / "00000.tar", members)
    assert cli.main(["index", str(folder)]) == 0
    source = loader(folder, engine=engine)
    (batch,) = take(source, 1)
    assert [bad.why for bad in source.bad.values()] == ["no image member"]
    for row, position in enumerate(batch.positions.tolist()):
        window = batch.windows[row]
        with Image.open(io.BytesIO(encoded(photo(40, 30, position), ("JPEG", "PNG", "WEBP", "JPEG")[position % 4]))) as image:
            box = (window.left, window.top, window.left + window.width, window.top + window.height)
            expected = np.asarray(image.convert("RGB").resize((24, 24), Image.Resampling.BICUBIC, box=box))
        assert np.abs(batch.images[row].permute(1, 2, 0).numpy().astype(int) - expected).mean() <= 2
        assert batch.captions[row] == f"row {position}"


def test_samples_without_captions_have_empty_ones(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    write_tar(folder / "00000.tar", [(f"s{row:02d}.jpg", encoded(photo(16, 16, row))) for row in range(8)])
    assert cli.main(["index", str(folder)]) == 0
    (batch,) = take(loader(folder, batch_size=8, needs=Needs(captions=True, context_length=12)), 1)
    assert batch.captions == [""] * 8
    assert batch.empty_captions == 8
    assert batch.tokens is not None
    assert (batch.tokens[:, 2:] == 0).all()
    (batch,) = take(loader(folder, batch_size=8, needs=Needs()), 1)
    assert (batch.captions, batch.tokens, batch.labels) == ([], None, None)
