"""`curate report --word`: who says a word or a phrase, how often, and the captions that say it, in rank order."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any

from curate.report import stats, wordcount
from curate.report.page import percent
from curate.report.stats.rows import rows_of
from curate.report.terminal import BOLD, styles
from shards.core import console
from shards.core.errors import UsageError
from shards.manifest import Manifest, ShardEntry
from shards.reader import Shard

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from curate.report.subject import Subject

TOP = 20_000  # the commonest words, in which near ones are looked for
NEAR = 5
MANY = 100  # shards, from which on the reading takes seconds and is worth a line of progress


def sayings(subject: Subject, word: str, most: int) -> dict[str, Any]:
    """Return who says a word, or a phrase of several: words as `wordcount.tokens` has them, one after the other in one caption.

    Per source in `sources`: `captions` that say it and their `share` in `all_captions`; `occurrences`, also `per_million` words;
    `rows`: at most `most` of the captions, lowest ranks first, with the places of the words in them, in characters.
    Of a word the counts are the statistics', and shards are read in order until each source has its rows. A phrase is counted
    in all captions. Native metadata has no shards: its rows come from the sample, and of a phrase it has no captions counted,
    of three words or more no occurrences.
    `near`: for each word that nobody says, words of the vocabulary that look like it.

    Raises:
        UsageError: there is no word in `word`.
    """
    phrase = wordcount.tokens(word)
    if not phrase:
        raise UsageError(f"no word in {word!r}", "a word or a phrase, with letters or numbers")
    found = _counted(subject, phrase)
    said = any(source["occurrences"] != 0 for source in found.values())
    shards = sum(len(manifest.shards) for manifest in subject.manifests)
    read = _read(subject, phrase, most, found) if said else 0
    for source in found.values():
        n, tokens, captions = source["occurrences"], source["tokens"], source["captions"]
        source["per_million"] = round(1e6 * n / tokens, 1) if n is not None and tokens else None
        source["share"] = round(captions / source["all_captions"], 6) if captions is not None and source["all_captions"] else None
    return {"word": word, "tokens": phrase, "sources": found, "shards": {"read": read, "all": shards}, "near": _near(subject, phrase)}


def bigrams_of(phrase: list[str]) -> list[str]:
    """Return the bigrams of a phrase: all that its counts need."""
    return [f"{a} {b}" for a, b in itertools.pairwise(phrase)]


def _counted(subject: Subject, phrase: list[str]) -> dict[str, dict[str, Any]]:
    """Return the counts that the statistics know of each source; None is what only the captions can tell."""
    con = subject.con
    tokens, everything = stats.token_counts(con), stats.totals(con, "words")
    one = "SELECT source, count, captions FROM words WHERE word = $1"
    pairs = bigrams_of(phrase)
    least = "SELECT source, min(count), count(*) FROM bigrams WHERE list_contains($1, bigram) GROUP BY source"
    rows = con.execute(least, [pairs]).fetchall() if pairs else con.execute(one, [phrase[0]]).fetchall()
    said = {source: (n, captions) for source, n, captions in rows}
    if pairs:  # no phrase comes where one of its bigrams does not; one of two words comes as often as its only bigram
        known = {source for source, (_, kinds) in said.items() if kinds == len(set(pairs))}
        said = {source: (said[source][0] if len(pairs) == 1 else None, None) for source in known}
    return {
        source: {"all_captions": everything.get(source, 0), "tokens": tokens.get(source, 0)}
        | dict(zip(("occurrences", "captions"), said.get(source, (0, 0)), strict=True))
        | {"rows": []}
        for source in subject.sources
    }


def _read(subject: Subject, phrase: list[str], most: int, found: dict[str, dict[str, Any]]) -> int:
    """Put rows, and counts that are not known yet, into `found`; returns how many shards were read."""
    import pyarrow as pa
    import pyarrow.compute as pc

    unknown = {source for source, one in found.items() if one["captions"] is None}
    wanted = {source: most if one["captions"] is None else min(most, one["captions"]) for source, one in found.items()}
    of_shards = {label for labels in subject.labels for label in labels.values()}
    unknown &= of_shards
    if len(of_shards) < len(subject.sources):
        native = pa.array([source for source in subject.sources if source not in of_shards], pa.string())
        _take(subject.sample.filter(pc.is_in(subject.sample["source"], native)), phrase, found, wanted, set())
    for source in unknown:
        found[source] |= {"occurrences": 0, "captions": 0}
    read, shards = 0, sum(len(manifest.shards) for manifest in subject.manifests)
    with console.Progress("captions", shards, "shards") if shards >= MANY else contextlib.nullcontext() as progress:
        for manifest, labels in zip(subject.manifests, subject.labels, strict=True):
            own = {label for label in labels.values() if label in found}
            for entry in manifest.shards:
                if not own & unknown and all(len(found[label]["rows"]) >= wanted[label] for label in own):
                    break
                _take(_captions(manifest, entry, labels), phrase, found, wanted, unknown)
                read += 1
                if progress:
                    progress.add()
    return read


def _captions(manifest: Manifest, entry: ShardEntry, labels: dict[str, str]) -> pa.Table:
    """Return source (label), uid and caption of a shard's samples in use."""
    import pyarrow as pa

    with Shard(manifest, entry) as shard:
        rows = rows_of(shard, ("source", "uid", "caption"))
    names = [labels.get(source or "", source or "") for source in rows["source"].to_pylist()]
    return rows.set_column(rows.column_names.index("source"), "source", pa.array(names, pa.string()))


def _take(rows: pa.Table, phrase: list[str], found: dict[str, dict[str, Any]], wanted: dict[str, int], unknown: set[str]) -> None:
    """Take the rows that say a phrase, and count them for the sources that are `unknown`."""
    import numpy as np

    rows = _likely(rows, phrase)
    counts = wordcount.count(rows["caption"])
    positions, times = np.unique(_places(counts, phrase), return_counts=True)
    sources, uids = rows["source"].to_pylist(), rows["uid"].to_pylist()
    for i, n in zip(positions.tolist(), times.tolist(), strict=True):
        source = found[sources[i]]
        if sources[i] in unknown:
            source["captions"] += 1
            source["occurrences"] += n
        if len(source["rows"]) < wanted[sources[i]]:
            caption = rows["caption"][i].as_py()
            source["rows"].append({"source": sources[i], "uid": uids[i], "caption": caption, "at": places(caption, phrase)})


def _likely(rows: pa.Table, phrase: list[str]) -> pa.Table:
    """Return the rows that may say a phrase: of captions in ASCII those with its letters. Most need no counting then."""
    import pyarrow.compute as pc

    captions = rows["caption"]
    lower, likely = pc.ascii_lower(captions), pc.string_is_ascii(captions)
    for word in phrase:
        likely = pc.and_(likely, pc.match_substring(lower, word))
    return rows.filter(pc.or_(likely, pc.invert(pc.string_is_ascii(captions))))


def _places(counts: wordcount.Counts, phrase: list[str]) -> NDArray[np.int64]:
    """Return the number of the caption of each occurrence of a phrase."""
    import numpy as np

    numbers = {word: i for i, word in enumerate(counts.words)}
    if not all(word in numbers for word in phrase):
        return np.zeros(0, np.int64)
    starts = np.flatnonzero(counts.stream[: max(0, len(counts.stream) - len(phrase) + 1)] == numbers[phrase[0]])
    for i, word in enumerate(phrase[1:], start=1):
        starts = starts[counts.stream[starts + i] == numbers[word]]
    ends = np.cumsum(counts.lengths)
    captions = np.searchsorted(ends, starts, side="right")
    return captions[starts + len(phrase) <= ends[captions]]  # type: ignore[no-any-return]


def places(caption: str, phrase: list[str]) -> list[tuple[int, int]]:
    """Return where a caption says a phrase, as half-open ranges of its characters.

    A caption that is folded before it is split keeps no places: its words are looked for one by one, then between white
    space. One that cannot be split so gives no place.
    """
    import re

    whole = wordcount.tokens(caption)
    for pattern in (r"[^\W_]+(?:['\u2019][^\W_]+)*", r"\S+"):
        pieces = [(word, m.start(), m.end()) for m in re.finditer(pattern, caption) for word in wordcount.tokens(m[0])]
        if [word for word, _, _ in pieces] == whole:
            n = len(phrase)
            return [(pieces[i][1], pieces[i + n - 1][2]) for i in range(len(whole) - n + 1) if whole[i : i + n] == phrase]
    return []


def _near(subject: Subject, phrase: list[str]) -> dict[str, list[str]]:
    import difflib

    query = "SELECT word FROM words GROUP BY word ORDER BY sum(count) DESC, word LIMIT $1"
    known = {word for (word,) in subject.con.execute("SELECT word FROM words WHERE list_contains($1, word)", [phrase]).fetchall()}
    missing = [word for word in dict.fromkeys(phrase) if word not in known]
    common = [word for (word,) in subject.con.execute(query, [TOP]).fetchall()] if missing else []
    return {word: difflib.get_close_matches(word, common, NEAR, 0.7) for word in missing}


def print_word(subject: Subject, word: str, most: int, json: bool = False) -> int:
    """Print the captions that say a word; returns 1 where nobody does, as grep."""
    found = sayings(subject, word, most)
    rows = [row for source in found["sources"].values() for row in source["rows"]]
    said = any(source["occurrences"] or source["rows"] for source in found["sources"].values())
    if json:
        console.emit(found)
    elif said:
        console.emit(text(found, console.terminal_width(), console.coloured()))
    else:
        console.say("\n".join(_nobody(found)))
    if said and subject.manifests:
        console.say(f"{len(rows):,} captions from {found['shards']['read']:,} of {found['shards']['all']:,} shards")
    if any(source["captions"] is None for source in found["sources"].values()):
        console.say("native metadata: captions come from its random sample, and what only all captions could tell is blank")
    return 0 if said else 1


def _nobody(found: dict[str, Any]) -> Iterator[str]:
    yield f"no caption says {' '.join(found['tokens'])!r}"
    for word, near in found["near"].items():
        yield f"  {word!r} is no word of theirs" + (f"; near it: {', '.join(near)}" if near else "")


def text(found: dict[str, Any], width: int, colour: bool) -> str:
    """Return sayings as text: a table of counts, then the captions of each source, the word marked."""
    sources, style = found["sources"], styles(found["sources"], colour)
    header = ("source", "captions", "of all", "occurrences", "per million words")
    rows = [
        (console.painted(name, style[name]), s["captions"], percent(s["share"]), s["occurrences"], s["per_million"])
        for name, s in sources.items()
    ]
    lines = [console.table(header, rows, width)]
    for name, source in sources.items():
        if source["rows"]:
            lines += ["", console.paint(console.visible(name), style[name])]
            lines += [_line(row, width, colour) for row in source["rows"]]
    return "\n".join(lines)


def _line(row: dict[str, Any], width: int, colour: bool) -> str:
    """Return a row on one line: uid, and as much of the caption as there is room for, around the first place."""
    uid, caption, at = console.visible(row["uid"]), row["caption"], row["at"]
    room = max(10, width - console.width_of(uid) - 4 - (0 if colour else 2 * len(at)))
    start, stop = _window([console.width_of(console.visible(c)) for c in caption], at[0][0] if at else 0, room)
    shown, end = console.ellipsis() if start else "", start
    for first, last in at:
        if end <= first < stop:
            word = console.visible(caption[first : min(last, stop)])
            shown += console.visible(caption[end:first]) + (console.paint(word, BOLD) if colour else f"*{word}*")
            end = min(last, stop)
    return f"  {uid}  {shown}{console.visible(caption[end:stop])}{console.ellipsis() if stop < len(caption) else ''}"


def _window(widths: list[int], first: int, room: int) -> tuple[int, int]:
    """Return which characters of a text to show, from one to before another: all, or what stands around `first`.

    A third of the room is for what comes before; what that leaves is for what follows, and the other way round.
    """
    if sum(widths) <= room:
        return 0, len(widths)
    start, stop, room, used = first, first, room - 2, 0  # two for the signs of what is cut off
    for most in (room // 3, room):
        while start and used + widths[start - 1] <= most:
            start -= 1
            used += widths[start]
        while stop < len(widths) and used + widths[stop] <= room:
            used += widths[stop]
            stop += 1
    return start, stop
