"""Singular, plural and possessive forms of English nouns, by rule.

The rules give every form that may be right: one that nobody writes (`cooky` from `cookies`, `pianoes`) finds nothing and does no
harm, one that is another word does, so rules stop short of those (`toes` gives no `to`, `uses` no `us`), and nouns that
have a plural alone keep it (`glasses` gives no `glass`).
"""

from __future__ import annotations

_IRREGULAR = {
    "man": "men", "woman": "women", "mouse": "mice", "dormouse": "dormice", "louse": "lice", "goose": "geese",
    "foot": "feet", "tooth": "teeth", "ox": "oxen",
    "child": "children", "person": "people", "die": "dice", "leaf": "leaves", "loaf": "loaves", "wolf": "wolves", "calf": "calves",
    "half": "halves", "shelf": "shelves", "bookshelf": "bookshelves", "elf": "elves", "thief": "thieves", "knife": "knives",
    "wife": "wives", "life": "lives", "hoof": "hooves", "scarf": "scarves", "dwarf": "dwarves", "wharf": "wharves",
    "cactus": "cacti", "fungus": "fungi", "octopus": "octopi", "hippopotamus": "hippopotami", "nautilus": "nautili",
    "abacus": "abaci", "locus": "loci", "radius": "radii", "alga": "algae", "larva": "larvae", "antenna": "antennae",
    "bacterium": "bacteria", "oasis": "oases", "quiz": "quizzes", "ibex": "ibices", "vortex": "vortices",
    "index": "indices", "matrix": "matrices", "bureau": "bureaux", "keeshond": "keeshonden",
}  # fmt: skip
_SINGULAR = {plural: word for word, plural in _IRREGULAR.items()}
# Singulars that end in s, beyond those in -ss, -us and -is; and plurals that have no singular with the same meaning.
_SINGULAR_IN_S = frozenset((
    "lens", "gas", "canvas", "atlas", "christmas", "texas", "pampas", "news", "mars", "series", "species", "swiss", "bras", "des",
    "molasses", "rhinoceros", "triceratops", "cyclops", "ananas", "pharos", "patas", "flandres", "indris",
))  # fmt: skip
_PLURAL_ONLY = frozenset((
    "glasses", "eyeglasses", "sunglasses", "spectacles", "shorts", "pants", "underpants", "trousers", "tights", "trunks", "jeans",
    "scissors", "pliers", "tongs", "tweezers", "binoculars", "clothes", "shades", "jammies", "pyrenees", "longlegs", "bellows",
    "barracks",
))  # fmt: skip


def variants(word: str) -> list[str]:
    """Return the forms of a folded word: itself first, its plurals or singulars, and their possessives in 's.

    A possessive in an apostrophe alone is the plural: `tokens` leaves the apostrophe out.
    """
    found = [word]
    if word.isascii() and word.isalpha() and len(word) > 1:
        found += singulars(word) or plurals(word)
    found = list(dict.fromkeys(found))
    return found + [f"{form}'s" for form in found if not form.endswith("s")]


def plurals(word: str) -> list[str]:
    """Return what may be a singular's plurals: `fox` gives foxes; `cactus`, cacti and cactuses; `man`, men and mans."""
    if word in _PLURAL_ONLY:
        return []
    found = [_IRREGULAR[word]] if word in _IRREGULAR else []
    if word.endswith("man") and word not in _IRREGULAR:
        found.append(word[:-2] + "en")
    if word.endswith("y") and word[-2] not in "aeiou":
        return [*found, word[:-1] + "ies"]
    if word.endswith(("s", "x", "z", "ch", "sh", "o")):
        found.append(word + "es")
    return found if word.endswith(("s", "x", "z", "sh")) else [*found, word + "s"]


def singulars(word: str) -> list[str]:
    """Return what may be a plural's singulars, nothing for what is no plural: `foxes` gives foxe and fox; `bus` nothing."""
    if word in _SINGULAR:
        return [_SINGULAR[word]]
    alone = word in _PLURAL_ONLY or word in _SINGULAR_IN_S or len(word) < 4
    if alone or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return []
    found = [word[:-1]]
    if word.endswith("ies"):
        found.append(word[:-3] + "y")
    elif word.endswith(("ses", "xes", "zes", "ches", "shes", "oes")) and len(word) > (5 if word.endswith("oes") else 4):
        found.append(word[:-2])
    return found
