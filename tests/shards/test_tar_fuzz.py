"""Mutated tars, indexes and manifests: whatever stands in them, reading ends, with samples or with an error of ours.

A fixed seed makes each mutant; 10,000 tars take some ten seconds of an idle core (slow), 300 stand in the quick tests.
"""

from __future__ import annotations

import collections
import contextlib
import io
import itertools
import json
import random
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pictures import encoded, photo

from shards import tar
from shards.core.errors import ProvenderError, TornFileError
from shards.header import pax_fields
from shards.index import index, index_tar
from shards.manifest import read_manifest
from shards.preflight import preflight
from shards.scan import scan
from shards.verify import verify
from train.data.batch import Needs
from train.data.loader import Loader

SECONDS = 5  # for one mutant of at most 100 kB, which take milliseconds; a hang takes for ever
_NUMBERS = (b"-0000001000", b"-1", b"7" * 11, b"77777777777", b"00000000000", b"00000001000", b"9", b"\x80" + b"\xff" * 11, b"\xff" * 12)
_NUMBERS += (b"\x80" + bytes(10) + b"\x01", b"\x80" + bytes(6) + b"\x7f" * 5, b"0o17", b"        ", b"")
_KINDS = b"01234567SLKxXgDVMN\0Z"
_TEXTS = (b"../../x.jpg", b"/etc/passwd.jpg", b"\xff\xfe.jpg", b"a" * 100, b"a.\n.jpg", b".", b"\x1b[2J.jpg", b"d/", b"..")
_PAX = (
    b"9" * 5000 + b" size=1\n",
    b"12 size=-512\n",
    b"11 size=1e3\n",
    b"22 size=" + b"1" * 14 + b"\n",
    b"5 a=\n",
    b"0 a=b\n",
    b"-9 path=a\n",
)


def _seeds(folder: Path) -> list[bytes]:
    """Return tars of the kinds that people have: USTAR, GNU and PAX, with links, sparse members, long names, two in one."""
    source = folder / "source"
    source.mkdir()
    for i in range(4):
        (source / f"{i}.jpg").write_bytes(b"x" * (300 * i + 1))
        (source / f"{i}.txt").write_bytes(b"caption")
    (source / f"{'long' * 30}.jpg").write_bytes(b"y" * 700)
    (source / "4.jpg").hardlink_to(source / "1.jpg")
    (source / "5.jpg").symlink_to("1.jpg")
    with (source / "6.jpg").open("wb") as file:
        for piece in range(8):
            file.seek(piece * 65536)
            file.write(b"z" * 512)
    seeds = []
    for form in ("gnu", "posix"):
        done = subprocess.run(["tar", "-S", "--sort=name", f"--format={form}", "-C", source, "-c", "."], check=True, capture_output=True)
        seeds.append(done.stdout)
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form) as file:
            for i in range(5):
                for ending in ("jpg", "txt"):
                    info = tarfile.TarInfo(f"é{i}.{ending}" if form != tarfile.USTAR_FORMAT else f"{i}.{ending}")
                    info.size = 100 * i
                    file.addfile(info, io.BytesIO(b"x" * info.size))
        seeds.append(out.getvalue())
    return [*seeds, seeds[2] + seeds[3]]


def _mutant(seeds: list[bytes], rng: random.Random) -> bytes:
    """Return a tar with one to six faults of the kinds that disks, networks and other tools make, and some that nobody makes."""
    content = bytearray(rng.choice(seeds))
    for _ in range(rng.randint(1, 6)):
        blocks = max(1, len(content) // tar.BLOCK)
        start = tar.BLOCK * rng.randrange(blocks)
        headers = [at for at in range(0, len(content) - 511, 512) if tar.is_header(content[at : at + 512])]
        header = rng.choice(headers) if headers and rng.random() < 0.8 else start
        fault = rng.randrange(9)
        if fault == 0:
            content[rng.randrange(len(content))] = rng.randrange(256)
        elif fault == 1:
            _set(content, header, 124, rng.choice(_NUMBERS), 12)
        elif fault == 2:
            content[header + 156 : header + 157] = bytes([rng.choice(_KINDS)])
        elif fault == 3:
            _set(content, header, rng.choice((0, 157, 345)), rng.choice(_TEXTS), 100)
        elif fault == 4:
            _set(content, header + tar.BLOCK, 0, rng.choice(_PAX), 0)
        elif fault == 5:
            del content[rng.randrange(len(content)) :]
        elif fault == 6:
            del content[start : start + tar.BLOCK * rng.randint(1, 3)]
        elif fault == 7:
            content[start:start] = bytes(tar.BLOCK) if rng.random() < 0.5 else rng.choice(seeds)[:1536]
        else:
            content[header + 482 : header + 483] = b"\x01"  # more of a sparse map
        if not content:
            content = bytearray(512)
        if rng.random() < 0.9 and len(content) >= header + 512:
            _sum_anew(content, header)
    return bytes(content)


def _set(content: bytearray, header: int, at: int, value: bytes, width: int) -> None:
    content[header + at : header + at + max(width, len(value))] = value.ljust(width, b"\0")


def _sum_anew(content: bytearray, header: int) -> None:
    block = content[header : header + 512]
    content[header + 148 : header + 156] = b"%06o\0 " % (sum(block[:148]) + 256 + sum(block[156:]))


class Hang(Exception):
    """A mutant took too long. No error of ours, so that nothing swallows it."""


@pytest.fixture
def alarmed() -> Iterator[Callable[[], None]]:
    """Return what arms the alarm anew for the next mutant."""

    def ring(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    yield lambda: signal.setitimer(signal.ITIMER_REAL, SECONDS) and None
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def _read(folder: Path, content: bytes) -> int:
    """Index a mutant as `shards index --bad-files skip` does, read every sample back, and return how many there are."""
    (folder / "m.tar").write_bytes(content)
    (folder / "m.idx").unlink(missing_ok=True)
    indexed = index_tar((str(folder), "m.tar", True, True))
    assert indexed.entry or indexed.bad or not indexed.keys
    if indexed.entry is None:
        return 0
    groups = tar.read_index(str(folder / "m.tar"))
    assert len(groups) == indexed.entry.samples
    for group in groups:
        assert len({member.key for member in group}) == 1
        assert all(member.offset >= 0 and member.offset + member.size <= len(content) for member in group)
    return len(groups)


def _fuzz(tmp_path: Path, alarmed: Callable[[], None], numbers: range) -> None:
    seeds = _seeds(tmp_path)
    read = 0
    for number in numbers:
        alarmed()
        try:
            read += _read(tmp_path, _mutant(seeds, random.Random(f"tar:{number}"))) > 0
        except Exception as error:
            raise AssertionError(f"mutant {number}: {type(error).__name__}: {error}") from error
    assert len(numbers) // 4 < read < len(numbers), "some mutants hold samples, and some do not"


def test_300_mutated_tars_neither_crash_nor_hang(tmp_path, alarmed):
    _fuzz(tmp_path, alarmed, range(300))


@pytest.mark.slow
def test_10000_mutated_tars_neither_crash_nor_hang(tmp_path, alarmed):
    _fuzz(tmp_path, alarmed, range(300, 10_300))


def _pictured_seeds() -> list[bytes]:
    """Return tars of samples that a training can use: small pictures, captions and classes, some pictures as hard links."""
    seeds = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form) as file:
            for i in range(8):
                picture = encoded(photo(24, 24, seed=i))
                for ending, content in (("jpg", picture), ("txt", f"caption {i}".encode()), ("cls", b"%d" % i)):
                    info = tarfile.TarInfo(f"é{i}.{ending}" if form == tarfile.PAX_FORMAT else f"{i}.{ending}")
                    if ending == "jpg" and i % 3 == 1:
                        info.type, info.linkname = tarfile.LNKTYPE, info.name.replace(str(i), str(i - 1))
                        file.addfile(info)
                    else:
                        info.size = len(content)
                        file.addfile(info, io.BytesIO(content))
        seeds.append(out.getvalue())
    return [*seeds, seeds[0] + seeds[1]]


def _used(folder: Path, content: bytes, *, with_index: bool) -> str:
    """Take a mutant through index, verify, preflight and two batches of the training loader; return how far it came.

    Raises:
        Exception: anything but an error of ours.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "m.tar").write_bytes(content)
    try:
        manifest = index(str(folder), bad_files="skip", engine="inline")
    except ProvenderError:
        return "refused by index"
    if not with_index:
        (folder / "m.idx").unlink(missing_ok=True)
    problems = list(verify(manifest, engine="inline"))
    assert all(str(problem) for problem in problems)
    try:
        preflight(manifest, captions=True, labels="class", classes=8)
        needs = Needs(captions=True, context_length=16, classes=8)
        loader = Loader([(manifest, None)], batch_size=2, image_size=16, seed=0, workers=1, needs=needs)
        batches = loader.batches()
        with contextlib.closing(batches):  # type: ignore[type-var]
            for batch in itertools.islice(batches, 2):
                assert batch.images.shape == (2, 3, 16, 16)
    except ProvenderError:
        return "refused by training"
    return "trained on"


@pytest.mark.slow
def test_what_index_accepts_goes_through_verify_and_the_loader_or_is_refused(tmp_path, alarmed):
    seeds = _pictured_seeds()
    assert _used(tmp_path / "set", seeds[0], with_index=True) == "trained on"  # what is imported and compiled once takes seconds
    outcomes = collections.Counter()
    for number in range(400):
        alarmed()
        content = _mutant(seeds, random.Random(f"used:{number}"))
        try:
            outcomes[_used(tmp_path / "set", content, with_index=number % 4 > 0)] += 1
        except Exception as error:
            raise AssertionError(f"mutant {number}: {type(error).__name__}: {error}") from error
    assert outcomes["trained on"] > 50, outcomes
    assert outcomes["refused by index"] > 10, outcomes


def test_mutated_indexes_are_read_or_refused(tmp_path, alarmed):
    from foreign import foreign, good

    manifest = foreign(tmp_path, good, samples=16)
    path = tmp_path / "00000.idx"
    whole = path.read_bytes()
    odd = (b"\xff", b" ", b"\n", b"-1", b"9" * 5000, "٣".encode(), b"v1.1", b"1e3", b"\0")
    for number in range(400):
        alarmed()
        rng = random.Random(f"idx:{number}")
        content = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(content))
            content[at : at + rng.randint(0, 3)] = rng.choice(odd) if rng.random() < 0.7 else b""
        path.write_bytes(bytes(content))
        try:
            found = scan(manifest, manifest.shards[0])
            assert all(found.group(i) for i in range(16))
            assert len(tar.read_index(str(tmp_path / "00000.tar"))) == 16
        except ProvenderError:
            continue


def test_mutated_manifests_are_read_or_refused(make_shards, alarmed):
    """Values of other types and sizes at any place of the JSON, and bytes changed at random."""
    folder = make_shards(20)
    path = Path(folder, "manifest.json")
    whole = json.loads(path.read_text())
    odd = [
        None,
        True,
        -1,
        0,
        10**30,
        1.5,
        float("nan"),
        "",
        "\0",
        "\x1b[2J.tar",
        "\ud800",
        "..",
        [],
        [1],
        [[]],
        {},
        {"a": None},
        "x" * 5000,
    ]
    for number in range(400):
        alarmed()
        rng = random.Random(f"manifest:{number}")
        values = json.loads(json.dumps(whole))
        places = list(_places(values))
        for _ in range(rng.randint(1, 2)):
            holder, key = rng.choice(places)
            holder[key] = rng.choice(odd)
        text = json.dumps(values)
        if rng.random() < 0.2:
            at = rng.randrange(len(text))
            text = text[:at] + rng.choice(["{", "}", "[" * 10_000, '"', "9" * 5000, ""]) + text[at + 1 :]
        path.write_text(text)
        for removed in (False, True):
            try:
                manifest = read_manifest(folder, removed=removed)
                assert manifest.to_json()
                assert manifest.digest
                assert removed or sum(entry.used for entry in manifest.shards) == manifest.samples
            except ProvenderError:
                continue


def _places(value: object) -> Iterator[tuple[object, object]]:
    """Yield every (container, key or position) of a JSON value."""
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        items = []
    for key, inner in items:
        yield value, key
        yield from _places(inner)


def test_a_long_pax_header_is_read_in_time_that_grows_with_its_length():
    """16 MiB of short records took minutes, as each one copied what is behind it."""
    started = time.process_time()
    fields = pax_fields(b"6 a=b\n" * 300_000 + b"9 path=x\n", "tar")
    assert fields == {"a": "b", "path": "x"}
    assert time.process_time() - started < 3
    with pytest.raises(TornFileError):
        pax_fields(b"6 a=b\n" * 1000 + b"9 path\n", "tar")
