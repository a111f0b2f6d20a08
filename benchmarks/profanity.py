"""Precision, recall and false alarms of the profanity filter on labelled texts, beside better-profanity and alt-profanity-check.

Profane are the texts labelled so; innocent are the clean ones and the Scunthorpe set. Class names and real captions have no
labels; there the flags are counted. alt-profanity-check pins its scikit-learn, so it runs in an environment made for it.

    python benchmarks/profanity.py [--captions 2000]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import venv
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _captions import REAL, captions, labelled
from _record import record

from curate.filters import profanity
from curate.filters._words import matcher

INNOCENT = ("clean", "clean-scunthorpe")
PEER = "alt-profanity-check"
PEER_CODE = """
import json, sys
from importlib.metadata import version
from profanity_check import predict
print(json.dumps([version("alt-profanity-check"), version("scikit-learn"), predict(json.load(sys.stdin)).tolist()]))
"""


def main() -> None:
    """Ask all, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--captions", type=int, default=2000, help="real captions, evenly drawn (better-profanity takes ten milliseconds each)"
    )
    arguments = parser.parse_args()
    if not REAL.is_dir():
        print(f"profanity: no labelled texts at {REAL}; PROVENDER_REALDATA names another place")
        return
    rows, names, found = labelled(), classes(), captions()
    found = found[:: max(1, len(found) // arguments.captions)]
    texts = [text for _, text in rows] + [f"a photo of a {name}." for name in names] + found
    value: dict[str, Any] = {"labels": Counter(label for label, _ in rows), "classes": len(names), "captions": len(found), "by": {}}
    for name, ask in judges().items():
        start = time.process_time()
        flags = ask(texts)
        if isinstance(flags, str):
            value["by"][name] = {"missing": flags}
            continue
        value["by"][name] = figures([label for label, _ in rows], flags, len(names))
        value["by"][name]["texts_per_second"] = round(len(texts) / (time.process_time() - start)) if name != PEER else None
    record("profanity", value, in_words(value))


def classes() -> list[str]:
    """Return the names of ImageNet's and the Pets' classes."""
    sets = json.loads((REAL / "reference/en_classnames.json").read_text("utf-8"))
    return sorted({*sets["imagenet1k"], *sets["pets"]})


def judges() -> dict[str, Callable[[list[str]], list[bool] | str]]:
    """Return who is asked: functions from texts to flags, or to a reason why there are none."""
    default, allow = profanity.read(profanity._default()), profanity.read(profanity.ALLOW_FILE)
    folder = REAL / "text/wordlists/LDNOOBW"
    shared = profanity.read(str(folder / "en"))
    all_languages = [entry for path in sorted(folder.iterdir()) if path.name != "LICENSE" for entry in profanity.read(str(path))]

    def ours(entries: list[str], disguised: bool) -> Callable[[list[str]], list[bool] | str]:
        find = matcher(entries, allow, disguised)
        return lambda texts: [bool(find(text)) for text in texts]

    return {
        "default": ours(default, True),
        "default, plain words": ours(default, False),
        "default + LDNOOBW en": ours([*default, *shared], True),
        "LDNOOBW en": ours(shared, True),
        "LDNOOBW, all languages": ours(all_languages, True),
        "better-profanity": better_profanity,
        PEER: alt_profanity_check,
    }


def better_profanity(texts: list[str]) -> list[bool] | str:
    """Ask better-profanity's own matcher, with its own list."""
    from better_profanity import profanity as peer

    return [peer.contains_profanity(text) for text in texts]


def alt_profanity_check(texts: list[str]) -> list[bool] | str:
    """Install alt-profanity-check in a fresh environment, and ask it there."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = f"{folder}/bin/python"
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", PEER]
        if subprocess.run(install, check=False, capture_output=True).returncode:
            return "it could not be installed here"
        asked = subprocess.run(
            [python, "-W", "ignore", "-c", PEER_CODE], input=json.dumps(texts), check=True, capture_output=True, text=True
        )
    return [bool(flag) for flag in json.loads(asked.stdout)[-1]]


def figures(labels: list[str], flags: list[bool], names: int) -> dict[str, Any]:
    """Return what the flags of the labelled texts, the class names and the captions come to."""
    hits = Counter(label for label, flag in zip(labels, flags, strict=False) if flag)
    right, wrong = hits["profane"], sum(hits[label] for label in INNOCENT)
    return {
        "precision": round(right / (right + wrong), 4),
        "recall": round(right / labels.count("profane"), 4),
        "false_alarms": wrong,
        "flagged_by_label": dict(sorted(hits.items())),
        "flagged_classes": sum(flags[len(labels) : len(labels) + names]),
        "flagged_captions": sum(flags[len(labels) + names :]),
    }


def in_words(value: dict[str, Any]) -> str:
    """Return the line of RESULTS.md."""
    labels, parts = value["labels"], []
    for name, v in value["by"].items():
        if "missing" in v:
            parts.append(f"{name}: {v['missing']}")
            continue
        clean, scunthorpe = (v["flagged_by_label"].get(label, 0) for label in INNOCENT)
        parts.append(
            f"{name}: precision {v['precision']:.3f}, recall {v['recall']:.3f}, {clean} clean and {scunthorpe} Scunthorpe texts, "
            f"{v['flagged_classes']} classes, {v['flagged_captions']} captions"
        )
    told = f"{labels['profane']} profane, {labels['clean']} clean and {labels['clean-scunthorpe']} Scunthorpe texts"
    return f"{told}, {value['classes']:,} class names, {value['captions']:,} real captions: {'; '.join(parts)}."


if __name__ == "__main__":
    main()
