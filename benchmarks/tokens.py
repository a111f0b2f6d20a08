"""Captions tokenised per CPU-second of one core: open_clip's tokenizer and ours, ids identical.

Real captions in batches of 64, as a loader hands them over, into arrays of 77 ids. Each round is a process of its own for each of
both, in turns; it goes over the captions twice: first with nothing in the caches of words, then with all of them there. What loads
the vocabulary is counted apart. A layer of tokens is written and read, too.

    python benchmarks/tokens.py [--rounds 5]
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _captions import REAL, captions
from _record import record

BATCH, LENGTH, REPEATED = 64, 77, 5


def main() -> None:
    """Time both, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", choices=["ours", "open_clip"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not REAL.is_dir():
        print(f"tokens: no real captions at {REAL}; PROVENDER_REALDATA names another place")
        return
    if arguments.measure:
        print(repr(ours() if arguments.measure == "ours" else theirs()))
        return
    rounds = [(measured("ours"), measured("open_clip")) for _ in range(arguments.rounds)]
    digests = {values["ids"] for pair in rounds for values in pair}
    if len(digests) != 1:
        raise SystemExit("tokens: the ids are not the same")
    values = figures(rounds)
    record("tokens", values, line(values))


def figures(rounds: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    """Return the median of each figure, and of each round's ratios of CPU time."""
    values: dict[str, Any] = {"captions": len(captions()), "batch": BATCH, "rounds": len(rounds)}
    for name, index in (("ours", 0), ("open_clip", 1)):
        times = [pair[index] for pair in rounds]
        values[name] = {kind: statistics.median(t[kind] for t in times) for kind in ("load_seconds", "cold_us", "warm_us")}
    for kind in ("cold", "warm"):
        values[f"{kind}_ratio"] = statistics.median(b[f"{kind}_us"] / a[f"{kind}_us"] for a, b in rounds)
    for name in ("words", "bytes_a_word", "layer_bytes", "layer_read_us"):
        values[name] = statistics.median(pair[0][name] for pair in rounds)
    return values


def line(values: dict[str, Any]) -> str:
    """Return the line for RESULTS.md."""
    a, b = values["ours"], values["open_clip"]
    return (
        f"{values['captions']:,} real captions in batches of {BATCH} to {LENGTH} ids, one core, ids identical: "
        f"{a['cold_us']:.1f} CPU-µs a caption while words are new, open_clip's tokenizer {b['cold_us']:.0f}: "
        f"{values['cold_ratio']:.1f}× (target 4×); {a['warm_us']:.1f} and {b['warm_us']:.0f} with known words: "
        f"{values['warm_ratio']:.1f}×; vocabulary loaded in {a['load_seconds']:.2f} CPU-s without torch (open_clip imported: "
        f"{b['load_seconds']:.1f}); {values['words']:,.0f} words cached in {values['bytes_a_word']:.0f} bytes each; "
        f"a layer of tokens: {values['layer_bytes']:.0f} bytes a caption, read in {values['layer_read_us']:.2f} CPU-µs"
    )


def measured(name: str) -> dict[str, Any]:
    """Measure one of both in a process of its own."""
    command = [sys.executable, __file__, "--measure", name]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return ast.literal_eval(done.stdout)


def ours() -> dict[str, Any]:
    """Time our tokenizer, and what lies on disk of a layer of tokens."""
    texts, load = captions(), -time.process_time()
    import numpy as np

    from shards.clip_bpe import cleaned, clip_bpe
    from train.data.text import Tokenizer

    bpe = clip_bpe()
    cleaned("é")  # imports ftfy, as importing open_clip does
    load += time.process_time()
    tokenizer = Tokenizer(LENGTH)
    out = np.empty((len(texts), LENGTH), np.int32)

    def fill(at: int) -> None:
        tokenizer.fill(texts[at : at + BATCH], out[at : at + BATCH])

    values = {"load_seconds": load, **both_passes(fill, len(texts))}
    assert not {"torch", "open_clip"} & set(sys.modules)
    size = sys.getsizeof(bpe._words) + sum(sys.getsizeof(word) + sys.getsizeof(ids) for word, ids in bpe._words.items())
    values |= {"ids": digest(out), "words": len(bpe._words), "bytes_a_word": size / len(bpe._words)}
    return values | layer(texts)


def theirs() -> dict[str, Any]:
    """Time open_clip's tokenizer."""
    texts, load = captions(), -time.process_time()
    from open_clip import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    load += time.process_time()
    import torch

    torch.set_num_threads(1)
    out = torch.empty((len(texts), LENGTH), dtype=torch.int32)

    def fill(at: int) -> None:
        out[at : at + BATCH] = tokenizer(texts[at : at + BATCH])

    return {"load_seconds": load, **both_passes(fill, len(texts)), "ids": digest(out.numpy())}


def both_passes(fill: Callable[[int], None], texts: int) -> dict[str, float]:
    """Return the CPU-µs a caption of the first pass over all batches, and of the median one of several later passes."""
    times = []
    for _ in range(1 + REPEATED):
        start = time.process_time()
        for at in range(0, texts, BATCH):
            fill(at)
        times.append((time.process_time() - start) / texts * 1e6)
    return {"cold_us": times[0], "warm_us": statistics.median(times[1:])}


def layer(texts: list[str]) -> dict[str, float]:
    """Return the size of a layer's column of tokens, and the CPU-µs that reading it takes, by caption."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    from curate.tokens import encoded_captions

    file = io.BytesIO()
    pq.write_table(pa.table({"tokens": encoded_captions(list(texts))}), file, compression="zstd")
    times = []
    for _ in range(1 + REPEATED):
        start = time.process_time()
        pq.read_table(pa.BufferReader(file.getvalue()), use_threads=False)
        times.append(time.process_time() - start)
    return {"layer_bytes": len(file.getvalue()) / len(texts), "layer_read_us": statistics.median(times[1:]) / len(texts) * 1e6}


def digest(ids: Any) -> str:
    """Return the sha256 of ids."""
    return hashlib.sha256(ids.tobytes()).hexdigest()


if __name__ == "__main__":
    main()
