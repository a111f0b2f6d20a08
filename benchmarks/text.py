"""Captions per CPU-second of one core: ftfy alone, our cleaning, the profanity filter, both as the measure pass runs them.

Real captions, repeated; the functions in turns; a rate is that of the median round, a ratio the median over the rounds.

    python benchmarks/text.py [--repeat 10] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _captions import REAL, captions
from _record import record

from curate.captions.clean import Clean, clean, cleaner
from curate.filters import alphabetic, language, profanity, repetition
from curate.filters.base import Facts

SLOW = {"language"}  # timed on the captions once, not repeated


def main() -> None:
    """Time all, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if not REAL.is_dir():
        print(f"text: no real captions at {REAL}; PROVENDER_REALDATA names another place")
        return
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    found = captions()
    hard = [text for text in found if not text.isascii()] + [case["original"] for case in mojibake()]
    value: dict[str, Any] = {"captions": len(found), "repeat": arguments.repeat, "rounds": arguments.rounds, "hard": len(hard)}
    times = rounds(functions(), found, arguments.repeat, arguments.rounds)
    value["seconds"] = times
    value["per_second"] = {
        name: round(len(found) * (1 if name in SLOW else arguments.repeat) / statistics.median(t)) for name, t in times.items()
    }
    value["clean_to_ftfy"] = ratio(times["ftfy"], times["clean"])
    hard_times = rounds({name: functions()[name] for name in ("ftfy", "clean")}, hard, 20 * arguments.repeat, arguments.rounds)
    value["hard_seconds"] = hard_times
    value["clean_to_ftfy_hard"] = ratio(hard_times["ftfy"], hard_times["clean"])
    record("text", value, in_words(value))


def mojibake() -> list[dict[str, str]]:
    """Return the labelled cases of broken text."""
    return json.loads((REAL / "text/mojibake.json").read_text("utf-8"))


def functions() -> dict[str, Callable[[str], object]]:
    """Return what is timed: functions of one caption."""
    from ftfy import fix_text

    def of(module: Any, options: Any = None) -> Callable[[str], object]:
        measure = module.measurer(options or module.Options())
        return lambda text: measure(facts(text))

    rude = profanity.measurer(profanity.Options())
    return {
        "ftfy": fix_text,
        "clean": clean,
        "clean, all rules": cleaner(Clean("drop", "mask", "redcaps")),
        "profanity": of(profanity),
        "profanity, plain words": of(profanity, profanity.Options(disguised=False)),
        "clean + profanity": lambda text: rude(facts(clean(text))),
        "repetition": of(repetition),
        "alphabetic": of(alphabetic),
        "language": of(language),
    }


def facts(text: str) -> Facts:
    """Return what a filter sees of a sample with this caption."""
    return Facts("source", text, (text,), text, 500, 375, 500, 375, "JPEG", 60_000, "")


def rounds(tasks: dict[str, Callable[[str], object]], texts: list[str], repeat: int, n: int) -> dict[str, list[float]]:
    """Return the CPU seconds of each task in each of n rounds, after one that does not count."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for i in range(n + 1):
        for name, task in tasks.items():
            start = time.process_time()
            for _ in range(1 if name in SLOW else repeat):
                for text in texts:
                    task(text)
            if i:
                times[name].append(round(time.process_time() - start, 4))
    return times


def ratio(slow: list[float], fast: list[float]) -> float:
    """Return how many times faster, the median over the rounds."""
    return round(statistics.median(a / b for a, b in zip(slow, fast, strict=True)), 2)


def in_words(value: dict[str, Any]) -> str:
    """Return the line of RESULTS.md."""
    rates = value["per_second"]
    return (
        f"{value['captions']:,} real captions × {value['repeat']}, captions per CPU-second of one core: ftfy alone {rates['ftfy']:,}; "
        f"clean {rates['clean']:,} = {value['clean_to_ftfy']}× (target 3×; {value['clean_to_ftfy_hard']}× on the {value['hard']} "
        f"that are not ASCII or mojibake); profanity {rates['profanity']:,} ({rates['profanity, plain words']:,} without disguises); "
        f"clean + profanity {rates['clean + profanity']:,} (target 100,000); RedCaps' rules {rates['clean, all rules']:,}; "
        f"repetition {rates['repetition']:,}; alphabetic {rates['alphabetic']:,}; language {rates['language']:,}."
    )


if __name__ == "__main__":
    main()
