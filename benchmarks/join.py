"""The exact near-duplicate join on hashes with the skew of real photos' pHashes, and imagededup on 10,000 of them.

A hash is three thirds of random real ones (photos and crops of them), so its bits depend on one another nearly as theirs
do; 1% are neighbours, one to four bits from another hash; 10% are ties, Zipf over a thousand. What is timed is
`near_duplicates(hashes, 4)`: equal hashes collapse, all pairs, the choice. Each size runs in a process of its own, that
has compiled before. The pairs of 50,000 are held against brute force.

    python benchmarks/join.py [--sizes 1e6 1e7 1e8]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _photos import REAL
from _record import record

from curate.dedup import near_duplicates, pairs_within

RADIUS, PEER, BRUTE = 4, 10_000, 50_000
CHUNK = 1_000_000


def main() -> None:
    """Run all sizes and the peer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=float, nargs="+", default=[1e6, 1e7, 1e8])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one_size(np.load(arguments.one), int(arguments.sizes[0]))))
        return
    pool, photo = real_hashes()
    drawn = np.unique(draw(pool, 100_000))
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"join-{os.getpid()}.npy"
    np.save(path, pool)
    try:
        sizes = []
        for size in arguments.sizes:
            command = [sys.executable, __file__, "--one", str(path), "--sizes", str(size)]
            sizes.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
            print(sizes[-1], file=sys.stderr)
    finally:
        path.unlink()
    value = {
        "radius": RADIUS, "photos": len(pool), "skew": {"photos": skew(pool, photo), "drawn": skew(drawn, np.arange(len(drawn)))},
        "sizes": sizes, "exponent": exponent(sizes), "peer": peer(pool), "brute": brute(pool),
    }  # fmt: skip
    record("join", value, in_words(value))


def real_hashes() -> tuple[np.ndarray, np.ndarray]:
    """Return the different pHashes of real photos and of crops of them, those of low information left out, and their photos."""
    import io

    from PIL import Image

    from curate.images import LOW_INFORMATION, ImagePolicy, open_image

    def crops(image: Any, rng: np.random.Generator) -> Iterator[Any]:
        yield image
        for _ in range(8):
            width, height = (max(16, int(side * rng.uniform(0.4, 0.9))) for side in image.size)
            left, top = int(rng.integers(0, max(1, image.width - width))), int(rng.integers(0, max(1, image.height - height)))
            yield image.crop((left, top, left + width, top + height))

    found = []
    for i, path in enumerate(sorted(REAL.rglob("*.jpg"))):
        try:
            image = Image.open(path, formats=["JPEG"]).convert("RGB")
        except OSError:
            continue  # one of the odd images
        for crop in crops(image, np.random.default_rng(i)):
            out = io.BytesIO()
            crop.save(out, "JPEG", quality=95)
            opened = open_image(out.getvalue(), ImagePolicy(), "reference")
            if opened.information >= LOW_INFORMATION:
                found.append((opened.phash, i))
    if not found:
        raise SystemExit("the real-data sample is not there: PROVENDER_REALDATA names its place")
    hashes, first = np.unique(np.array([phash for phash, _ in found], np.uint64), return_index=True)
    return hashes, np.array([i for _, i in found])[first]


def draw(pool: np.ndarray, n: int, seed: int = 0) -> np.ndarray:
    """Return n hashes: thirds of real ones put together, 1% of them neighbours and 10% ties."""
    rng = np.random.default_rng(seed)
    one = np.uint64(1)
    hashes = np.empty(n, np.uint64)
    hot = pool[rng.integers(0, len(pool), 1000)]
    for start in range(0, n, CHUNK):
        m = min(CHUNK, n - start)
        h = np.zeros(m, np.uint64)
        for low, high in ((0, 21), (21, 43), (43, 64)):
            h |= pool[rng.integers(0, len(pool), m)] & np.uint64((1 << high) - (1 << low))
        near = rng.random(m) < 0.01
        others = h[rng.integers(0, m, m)] if start == 0 else hashes[rng.integers(0, start, m)]
        flips = rng.integers(1, RADIUS + 1, m)
        for k in range(RADIUS):
            others = np.where(k < flips, others ^ (one << rng.integers(0, 64, m).astype(np.uint64)), others)
        ties = hot[np.minimum(rng.zipf(1.3, m) - 1, 999)]
        hashes[start : start + m] = np.where(rng.random(m) < 0.1, ties, np.where(near, others, h))
    return hashes


def skew(hashes: np.ndarray, photo: np.ndarray) -> dict[str, float]:
    """Return how much likelier than chance hashes of two unlike photos agree on a block of 13 bits, and on two of 11 bits;
    bits are dealt to blocks in turn, as the join does."""
    from itertools import combinations

    def coincidences(keys: np.ndarray) -> float:
        counts = np.unique(keys, return_counts=True)[1].astype(float)
        return float((counts * (counts - 1)).sum())

    bits = (hashes[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    pairs = len(hashes) * (len(hashes) - 1) - coincidences(photo)
    factors = {}
    for k in (1, 2):
        ratios = []
        for chosen in combinations(range(RADIUS + k), k):
            own = bits[:, np.concatenate([np.arange(block, 64, RADIUS + k) for block in chosen])]
            keys = (own << np.arange(own.shape[1], dtype=np.uint64)).sum(axis=1, dtype=np.uint64)
            together = coincidences(keys) - coincidences(keys << np.uint64(24) | photo.astype(np.uint64))
            ratios.append(together / pairs * 2.0 ** own.shape[1])
        factors[f"{k} blocks"] = round(float(np.mean(ratios)), 2)
    return factors


def one_size(pool: np.ndarray, n: int) -> dict[str, Any]:
    """Time the join of n hashes in this process: wall and CPU seconds, the peak of memory, what was found."""
    near_duplicates(draw(pool, 20_000, 1), RADIUS)
    hashes = draw(pool, n)
    wall, cpu = time.perf_counter(), time.process_time()
    kept_by = near_duplicates(hashes, RADIUS)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "n": n, "wall_s": round(wall, 3), "cpu_s": round(cpu, 3), "gib": round(gib, 2), "load": os.getloadavg()[0],
        "duplicates": int((kept_by >= 0).sum()),
    }  # fmt: skip


def exponent(sizes: list[dict[str, Any]]) -> dict[str, float]:
    """Return the growth exponent from the least size to the largest, of wall and of CPU seconds."""
    first, last = sizes[0], sizes[-1]
    if first is last:
        return {}
    return {key: round(math.log(last[key] / first[key]) / math.log(last["n"] / first["n"]), 2) for key in ("wall_s", "cpu_s")}


def peer(pool: np.ndarray) -> dict[str, Any]:
    """Time imagededup's search on 10,000 hashes, and ours; both must find the same pairs."""
    from imagededup.methods import PHash

    hashes = np.unique(draw(pool, PEER * 2, 2))[:PEER]
    np.random.default_rng(0).shuffle(hashes)
    encodings = {str(i): f"{h:016x}" for i, h in enumerate(hashes.tolist())}
    start = time.perf_counter()
    theirs = PHash(verbose=False).find_duplicates(encoding_map=encodings, max_distance_threshold=RADIUS)
    peer_s = time.perf_counter() - start
    times = []
    for _ in range(5):
        start = time.perf_counter()
        left, right = pairs_within(hashes, RADIUS)
        times.append(time.perf_counter() - start)
    ours = set(zip(left.tolist(), right.tolist(), strict=True))
    same = ours == {(int(i), int(j)) for i, found in theirs.items() for j in found if int(i) < int(j)}
    ours_s = sorted(times)[2]
    return {"n": PEER, "imagededup_s": round(peer_s, 2), "ours_s": round(ours_s, 5), "ratio": peer_s / ours_s, "same": same}


def brute(pool: np.ndarray) -> dict[str, Any]:
    """Compare all pairs of 50,000 hashes one by one."""
    hashes = np.unique(draw(pool, BRUTE, 3))
    np.random.default_rng(0).shuffle(hashes)
    left, right = pairs_within(hashes, RADIUS)
    expected = []
    for j in range(1, len(hashes)):
        near = np.flatnonzero(np.bitwise_count(hashes[:j] ^ hashes[j]) <= RADIUS)
        expected.append(near + j * len(hashes))
    found = np.concatenate(expected)
    return {"n": len(hashes), "pairs": len(found), "same": bool(np.array_equal(found, left + right * len(hashes)))}


def in_words(value: dict[str, Any]) -> str:
    """Return the line for RESULTS.md."""
    sizes = "; ".join(f"{s['n']:,} in {s['wall_s']:.2f} s ({s['cpu_s']:.2f} CPU-s, {s['gib']:.1f} GiB)" for s in value["sizes"])
    peer, brute, skews = value["peer"], value["brute"], value["skew"]
    growth = value["exponent"]
    assert peer["same"]
    assert brute["same"]
    return (
        f"r ≤ {RADIUS}, hashes skewed like photos' ({skews['drawn']['2 blocks']}× chance to agree on 21 bits, photos "
        f"{skews['photos']['2 blocks']}×), 1% neighbours, 10% ties: {sizes}; exponent {growth.get('cpu_s', '–')} (CPU), "
        f"{growth.get('wall_s', '–')} (wall); {peer['n']:,} hashes {peer['ratio']:,.0f}× imagededup's find_duplicates "
        f"({peer['imagededup_s']:.1f} s), same pairs; pairs of {brute['n']:,} equal brute force ({brute['pairs']:,})."
    )


if __name__ == "__main__":
    main()
