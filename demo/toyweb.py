"""Draw a toy web from a seed: pictures to serve, native redcaps, cc3m and cc12m metadata, planted defects, a held-out set.

    WEB/files/…                     what the server hands out, by URL path
    WEB/routes.json                 paths that answer otherwise: a redirect, a header, another file
    WEB/redcaps/annotations/*.json  WEB/cc3m/Train_GCC-training.tsv  WEB/cc12m/cc12m.tsv
    WEB/heldout/{test,train}/CLASS/*.jpg
    WEB/plan.json                   the truth: which record carries which defect

Every picture but a planted copy is at least MIN_DISTANCE pHash bits from every other one, so that what dedup finds
can be counted against the plan.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo import files, words
from demo.scene import CLASSES, compose, render

SOURCES = ("redcaps", "cc3m", "cc12m")
MIN_DISTANCE = 8
# Defects of a picture that stands alone, of words, and of serving: each takes one of a source's scenes.
IN_PICTURES = {"truncated": 8, "cmyk": 8, "animated": 8, "tiny": 10, "banner": 6, "rotated": 8}
IN_WORDS = {"mojibake": 20, "html_caption": 20, "profanity": 15, "no_caption": 20, "file_name": 20}
IN_SERVING = {"html_body": 8, "noai": 5, "redirect": 12}
COPIES = {"exact_copy": 40, "recoded_copy": 40, "resized_copy": 40}
VIRAL = (4, 19)
WITHOUT_PICTURE = {"placeholder": 45, "dead": 50}
MOODS = (
    "mood",
    "me on mondays",
    "when you see it",
    "same energy",
    "this is fine",
    "no words",
    "tell me why",
    "big yikes",
    "so true",
    "wait for it",
)


@dataclass(frozen=True)
class Size:
    """How large a web is. `scale` shrinks every count but the placeholders' of a source's 900, 750 and 750 scenes."""

    scale: float = 1.0
    test_per_class: int = 40
    train_per_class: int = 16

    def scenes(self, source: str) -> int:
        """Return the number of distinct pictures of a source."""
        return round({"redcaps": 900}.get(source, 750) * self.scale)

    def count(self, defect: str, n: int) -> int:
        """Return how often a defect is planted in each source."""
        return max(24, round(n * self.scale)) if defect == "placeholder" else max(2, round(n * self.scale))


@dataclass
class Post:
    """One record: a picture's URL path under a caption. `of` is the record that it copies."""

    source: str
    number: int
    path: str
    caption: str
    defect: str = ""
    of: int = -1
    source_id: str = ""


@dataclass(frozen=True)
class Job:
    """One scene to draw: the file it becomes, and the files that copy it."""

    seed: tuple[int, ...]
    name: str
    path: str
    kind: str
    copies: tuple[tuple[str, str], ...] = ()


@dataclass
class Web:
    """What is being planned: posts, the pictures they need, and the routes that are no plain files."""

    seed: int
    posts: list[Post] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    routes: dict[str, dict[str, Any]] = field(default_factory=dict)


def draw(folder: str | Path, *, seed: int = 0, port: int = 8970, size: Size | None = None, workers: int = 2) -> dict[str, Any]:
    """Draw a web into a folder and return its plan; the same seed, port and size give the same bytes."""
    size, root, web = size or Size(), Path(folder), Web(seed)
    for index, source in enumerate(SOURCES):
        _plan_source(web, source, index, size)
    for split, per_class in (("test", size.test_per_class), ("train", size.train_per_class)):
        part = {"test": 8, "train": 9}[split]
        names = [(n, k) for n in CLASSES for k in range(per_class)]
        web.jobs += [Job((seed, part, i), n, f"heldout/{split}/{n}/{k:03}.jpg", "jpg") for i, (n, k) in enumerate(names)]
    _render(web.jobs, root, workers)
    (root / "files/removed.png").write_bytes(files.placeholder())
    (root / "files/moved.html").write_bytes(files.SOFT_404)
    _write(root / "routes.json", web.routes)
    _write_metadata(web, root, port)
    plan = _plan(web, seed, port)
    _write(root / "plan.json", plan)
    return plan


def _plan_source(web: Web, source: str, index: int, size: Size) -> None:
    """Choose a source's posts: its scenes, one defect for some of them, and posts that repeat or lack a picture."""
    import numpy as np

    rng = np.random.default_rng((web.seed, index))
    profanity = profane_words()
    count = size.scenes(source)
    order = [int(i) for i in rng.permutation(count)]
    planted: dict[int, str] = {}
    for defect, n in (IN_PICTURES | IN_WORDS | IN_SERVING).items():
        planted |= {order.pop(): defect for _ in range(size.count(defect, n))}
    copied = {order.pop(): [kind] for kind, n in COPIES.items() for _ in range(size.count(kind, n))}
    viral = max(1, round(VIRAL[0] * size.scale))
    copied |= {order.pop(): ["viral_copy"] * VIRAL[1] for _ in range(viral)}
    number = count
    for i in range(count):
        scene_seed = (web.seed, index + 1, i)
        scene, defect = compose(scene_seed), planted.get(i, "")
        caption = words.spoil(rng, words.STYLES[source](rng, scene), defect, profanity)
        kind = defect if defect in IN_PICTURES else str(rng.choice(["jpg", "png", "webp"], p=[0.86, 0.07, 0.07]))
        post = Post(source, i, _path(web.seed, source, i, kind), caption, defect)
        web.posts.append(post)
        copies = []
        for k, how in enumerate(copied.get(i, [])):
            said = f"{MOODS[k % 10]} {'!' * (k // 10 + 1)}" if how == "viral_copy" else words.STYLES[source](rng, scene)
            copy = Post(source, number, _path(web.seed, source, number, "jpg"), said, how, i)
            number += 1
            web.posts.append(copy)
            copies.append((f"files{copy.path}", ("exact_copy", "resized_copy")[k % 2] if how == "viral_copy" else how))
        if defect == "html_body":
            web.routes[post.path] = {"file": "moved.html", "type": "text/html"}
        else:
            web.jobs.append(Job(scene_seed, "", _served(web, post), kind, tuple(copies)))
    for defect, n in WITHOUT_PICTURE.items():
        for _ in range(size.count(defect, n)):
            said = words.STYLES[source](rng, compose((web.seed, index + 4, number)))
            post = Post(source, number, _path(web.seed, source, number, "jpg"), said, defect)
            number += 1
            web.posts.append(post)
            if defect == "placeholder":
                web.routes[post.path] = {"file": "removed.png", "type": "image/png"}


def _served(web: Web, post: Post) -> str:
    """Return where a post's picture lies, and note a path that does not lead there plainly."""
    if post.defect == "redirect":
        web.routes[post.path] = {"location": f"/moved{post.path}"}
        return f"files/moved{post.path}"
    if post.defect == "noai":
        web.routes[post.path] = {"file": post.path[1:], "headers": {"X-Robots-Tag": "noai"}}
    return f"files{post.path}"


def _path(seed: int, source: str, number: int, kind: str) -> str:
    suffix = {"png": "png", "webp": "webp", "tiny": "png"}.get(kind, "jpg")
    name = {
        "redcaps": f"i/{image_id(seed, number)}",
        "cc3m": f"photos/{number // 100:02}/img-{number}",
        "cc12m": f"shop/item-{number}-large",
    }
    return f"/{name[source]}.{suffix}"


def image_id(seed: int, number: int) -> str:
    """Return a redcaps image id: six letters and digits, distinct for distinct numbers."""
    digits, value = "0123456789abcdefghijklmnopqrstuvwxyz", (number * 7919 + seed * 104729) % 36**4 + 10 * 36**5 + 36**4
    out = ""
    while value:
        value, digit = divmod(value, 36)
        out = digits[digit] + out
    return out


def profane_words() -> list[str]:
    """Return words for the profanity defect, read from the installed better-profanity: none of ours is written here."""
    from importlib.metadata import files as files_of

    found = next(f for f in files_of("better-profanity") or [] if f.name == "profanity_wordlist.txt")
    allowed = (Path(__file__).parent.parent / "curate/filters/profanity_allow.txt").read_text().split()
    listed = [w.strip() for w in found.read_text().splitlines()]
    return [w for w in listed if w.isascii() and w.isalpha() and w.islower() and 4 <= len(w) <= 7 and w not in allowed][::40]


def _render(jobs: list[Job], root: Path, workers: int) -> None:
    """Draw all jobs; a picture too close to an earlier one is drawn again from its next attempt's seed."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    for parent in {(root / p).parent for job in jobs for p in (job.path, *(c[0] for c in job.copies))}:
        parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        hashes: list[int] = [-1] * len(jobs)
        waiting = [(i, 0) for i in range(len(jobs))]
        while waiting:
            specs = [(jobs[i], attempt, str(root)) for i, attempt in waiting]
            for (i, _), found in zip(waiting, pool.map(_draw_one, specs, chunksize=32), strict=True):
                hashes[i] = found
            clashes = _clashes(hashes)
            waiting = [(i, attempt + 1) for i, attempt in waiting if i in clashes]


def _clashes(hashes: list[int]) -> set[int]:
    """Return the indices whose hash lies within MIN_DISTANCE − 1 of an earlier one's."""
    import numpy as np

    table = np.array(hashes, dtype="uint64")
    close = [np.bitwise_count(table[:i] ^ table[i]).min(initial=64) < MIN_DISTANCE for i in range(len(table))]
    return {int(i) for i in np.flatnonzero(close)}


def _draw_one(spec: tuple[Job, int, str]) -> int:
    """Draw one scene, write its file and its copies, and return its pHash."""
    import numpy as np

    job, attempt, root = spec
    seed = (*job.seed, attempt)
    rng = np.random.default_rng((*seed, 2))
    picture = render(compose(job.seed, job.name), attempt)
    content = files.encode(picture, job.kind, rng)
    Path(root, job.path).write_bytes(content)
    for path, how in job.copies:
        Path(root, path).write_bytes(files.copy(content, how, rng))
    return phash(picture)


def phash(picture: Any) -> int:
    """Return the usual 64-bit pHash: 8×8 low DCT coefficients of a 32×32 gray picture against their median."""
    import numpy as np
    from PIL import Image

    gray = np.asarray(picture.resize((32, 32), Image.Resampling.LANCZOS).convert("L"), dtype="float64")
    k, n = np.mgrid[0:8, 0:32]
    basis = np.cos(np.pi * k * (2 * n + 1) / 64)
    low = basis @ gray @ basis.T
    return int.from_bytes(np.packbits(low >= np.median(low.ravel()[1:])).tobytes(), "big")


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _write_metadata(web: Web, root: Path, port: int) -> None:
    """Write each source's posts as its publisher does, and note the ids they get."""
    host = f"http://127.0.0.1:{port}"
    posts: dict[str, list[Post]] = {source: _shuffled(web, source) for source in SOURCES}
    (root / "redcaps/annotations").mkdir(parents=True, exist_ok=True)
    for year in (2018, 2019):
        for k, subreddit in enumerate(words.SUBREDDITS):
            part = [p for i, p in enumerate(posts["redcaps"]) if i % 8 == k * 2 + year % 2]
            info = {"start_date": f"{year}-01-01", "end_date": f"{year}-12-31", "version": "v1.0", "url": "https://redcaps.xyz"}
            value = {"info": info, "annotations": [_annotation(web.seed, p, subreddit, year, host) for p in part]}
            _write(root / f"redcaps/annotations/{subreddit}_{year}.json", value)
    for source, name in (("cc3m", "Train_GCC-training.tsv"), ("cc12m", "cc12m.tsv")):
        (root / source).mkdir(exist_ok=True)
        lines = [_tsv_line(p, host) for p in posts[source]]
        (root / source / name).write_text("".join(lines), encoding="utf-8", newline="\n")


def _shuffled(web: Web, source: str) -> list[Post]:
    import numpy as np

    found = [p for p in web.posts if p.source == source]
    return [found[int(i)] for i in np.random.default_rng((web.seed, 7, SOURCES.index(source))).permutation(len(found))]


def _annotation(seed: int, post: Post, subreddit: str, year: int, host: str) -> dict[str, Any]:
    post.source_id = image_id(seed, post.number)
    created = 1514764800 + (year - 2018) * 31536000 + post.number * 7200
    return {
        "image_id": post.source_id,
        "author": f"user{post.number % 97}",
        "url": host + post.path,
        "raw_caption": post.caption,
        "caption": _redcaps_caption(post.caption),
        "subreddit": subreddit,
        "score": 2 + post.number % 500,
        "created_utc": created,
        "permalink": f"/r/{subreddit}/comments/{post.source_id}/",
    }


def _redcaps_caption(raw: str) -> str:
    """Return a title as the publisher cleans it: lower case, ASCII, no brackets."""
    import re

    return re.sub(r"[\[(].*?[\])]", "", raw.lower()).encode("ascii", "ignore").decode().strip()


def _tsv_line(post: Post, host: str) -> str:
    url = host + post.path + ("?imgmax=800" if post.source == "cc3m" else "")
    post.source_id = f"{url}\n{post.caption}"
    return f"{post.caption}\t{url}\n" if post.source == "cc3m" else f"{url}\t{post.caption}\n"


def _plan(web: Web, seed: int, port: int) -> dict[str, Any]:
    """Return the truth about the web, for the driver and the tests."""
    planted: dict[str, dict[str, int]] = {source: {} for source in SOURCES}
    for post in web.posts:
        if post.defect:
            planted[post.source][post.defect] = planted[post.source].get(post.defect, 0) + 1
    ids = {(p.source, p.number): p.source_id for p in web.posts}
    records = [
        {"source": p.source, "source_id": p.source_id, "path": p.path, "defect": p.defect, "of": ids.get((p.source, p.of), "")}
        for p in web.posts
    ]
    totals = {source: sum(p.source == source for p in web.posts) for source in SOURCES}
    return {"seed": seed, "port": port, "classes": list(CLASSES), "records_per_source": totals, "planted": planted, "records": records}
