"""Words for a scene in the manner of each source: a chatty post, a hypernymed caption, an alt text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from demo.scene import Scene, Thing

GROUND_WORDS = {
    "plain": ("a {c} background", "plain {c}", "a {c} wall"),
    "striped": ("a {c} striped background", "{c} stripes"),
    "dotted": ("a dotted {c} background", "{c} polka dots"),
    "checked": ("a checked {c} background", "{c} checks"),
    "cloudy": ("a cloudy {c} background", "a hazy {c} background"),
    "grassy": ("a {c} hill", "a {c} meadow"),
}
KINDS = {
    "boat": "vehicle",
    "butterfly": "insect",
    "car": "vehicle",
    "cat": "animal",
    "cup": "container",
    "fish": "animal",
    "flower": "plant",
    "house": "building",
    "mushroom": "plant",
    "rocket": "vehicle",
    "tree": "plant",
}
SUBREDDITS = ("itookapicture", "somethingimade", "crafts", "mildlyinteresting")
POSTS = (
    "{a}",
    "itap of {a}",
    "saw {a} on the way home today",
    "my kid drew {a} and i love it",
    "found {a}. is it just me or is it cute?",
    "I made {a} this weekend [OC]",
    "{a}, thought you would like it",
    "first try at painting: {a} (be gentle)",
)
CONCEPTUAL = (
    "{a}",
    "{a} .",
    "illustration of {a} .",
    "{a} , drawn by hand",
    "a picture of {a} .",
    "this is {a} that person painted for a friend .",
    "close up of {a}",
)
ALTS = (
    "{t}",
    "{t} Stock Illustration",
    "Vector of {a}",
    "{t} - Image {n} of 12",
    "Photo of {a}, taken by <PERSON>",
    "Hand drawn {p} clipart | {t}",
    "{t} Art Print",
)


def phrase(rng: Any, scene: Scene, hypernyms: float = 0.0) -> str:
    """Return a noun phrase such as `a small spotted red star on blue stripes`; each attribute may stay out."""
    nouns = " and ".join(_noun(rng, thing, hypernyms) for thing in scene.things)
    if rng.random() < 0.65:
        return nouns
    words = GROUND_WORDS[scene.ground]
    where = words[int(rng.integers(len(words)))].format(c=scene.ground_colour).replace("a orange", "an orange")
    return f"{nouns} {'on' if rng.random() < 0.7 else 'against'} {where}"


def _noun(rng: Any, thing: Thing, hypernyms: float) -> str:
    words = []
    if thing.size in ("small", "big") and rng.random() < 0.25:
        words.append(thing.size)
    if thing.texture != "plain" and rng.random() < 0.25:
        words.append(thing.texture)
    if rng.random() < 0.4:
        words.append(thing.colour)
    words.append(KINDS.get(thing.name, thing.name) if rng.random() < hypernyms else thing.name)
    return f"{'an' if words[0][0] in 'aeiou' else 'a'} {' '.join(words)}"


def post(rng: Any, scene: Scene) -> str:
    """A redcaps title."""
    return _one(rng, POSTS).format(a=phrase(rng, scene))


def conceptual(rng: Any, scene: Scene) -> str:
    """A cc3m caption: lower case, tokenised, some things named by their kind only."""
    return _one(rng, CONCEPTUAL).format(a=phrase(rng, scene, hypernyms=0.08))


def alt_text(rng: Any, scene: Scene) -> str:
    """A cc12m alt text: title case, the jargon of shops and stock sites, people masked."""
    said = phrase(rng, scene)
    title = said.removeprefix("a ").removeprefix("an ").title()
    title = title if " " in title else f"{title} Drawing"
    return _one(rng, ALTS).format(a=said, t=title, p=scene.things[0].name, n=int(rng.integers(1, 13)))


def _one(rng: Any, choices: Any) -> Any:
    return choices[int(rng.integers(len(choices)))]


def spoil(rng: Any, caption: str, defect: str, profanity: Any) -> str:
    """Return a caption with one of the ills of the web; another defect's caption stays as it is."""
    if defect == "mojibake":
        return f"{caption} – at the {_one(rng, ('café', 'crêperie', 'fête'))}".encode().decode("cp1252")
    if defect == "html_caption":
        return f"<b>{caption}</b> &amp; more<br/>"
    if defect == "profanity":
        return f"{caption} {_one(rng, profanity)}"
    if defect == "file_name":
        return f"IMG_{int(rng.integers(1000, 9999))}.JPG"
    return "" if defect == "no_caption" else caption


STYLES: dict[str, Callable[[Any, Scene], str]] = {"redcaps": post, "cc3m": conceptual, "cc12m": alt_text}
