"""The profanity matcher: whole words, phrases, spelling with symbols, the allow-list; against a naive twin."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.filters import profanity
from curate.filters._words import matcher
from curate.filters.base import Facts
from curate.images import ImagePolicy
from curate.measure import MeasureTask, measure_key
from curate.recipe import SourceSpec
from shards.core.config import digest
from shards.core.errors import UsageError

LIST = [
    "tit",
    "cock",
    "coon",
    "son-of-a-bitch",
    "blow job",
    "f.u.c.k",
    "sh!t",
    "shi+",
    "scheiße",
    "くそ",
    "鸡巴",
    "शाप",
    "🖕",
    "pot",
    "pot head",
]
ALLOW = ["Maine Coon", "cock-of-the-rock", "pot"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a tit", ["tit"]),
        ("Tit-Bits, TIT. (tit)", ["tit", "tit", "tit"]),
        ("title constitution Scunthorpe cockatoo grasshopper", []),
        ("a Maine Coon and a coon", ["coon"]),
        ("MAINE  COON! maine-coon", []),
        ("Andean Cock-of-the-Rock on a rock", []),
        ("cock of the walk", ["cock"]),
        ("son of a bitch; son-of-a-bitch", ["son-of-a-bitch", "son-of-a-bitch"]),
        ("blow\tjob, blowjob", ["blow job"]),
        ("f u c k, F.U.C.K., f-u_c-k", ["f.u.c.k"] * 3),
        ("Sh!t! 'sh!t' shi+", ["sh!t", "sh!t", "shi+"]),
        ("shi tzu, sh it", []),
        ("SCHEISSE scheiße", ["scheiße", "scheiße"]),
        ("ｔｉｔ", ["tit"]),
        ("これはくそです", ["くそ"]),
        ("शाप शापित", ["शाप"]),
        ("no🖕way", ["🖕"]),
        ("a pot, a pot head", ["pot head"]),
        ("", []),
    ],
)
def test_known_cases(text: str, found: list[str]) -> None:
    assert matcher(LIST, ALLOW)(text) == found


def naive(entries: list[str], text: str) -> set[str]:
    """Search each entry with its own pattern: no letter or digit on either side, anything else between its words; one word in the plural, too."""
    patterns = {e: r"[^0-9a-z]+".join(e.split()) + ("" if " " in e else "s?") for e in entries}
    return {e for e in entries if re.search(rf"(?<![0-9a-z]){patterns[e]}(?![0-9a-z])", text.casefold())}


def facts(*captions: str) -> Facts:
    """Return what the filter sees of a sample with these captions."""
    return Facts("toy", captions[0], captions, captions[0], 1, 1, 1, 1, "JPEG", 1, "")


words = st.sampled_from(["tit", "tits", "hand", "job", "Hand", "of", "god", "a", "JOB", "tit4tat"])
texts = st.lists(st.tuples(words, st.sampled_from([" ", ", ", "-", "_", "", "’"])), max_size=8).map(lambda p: "".join(w + s for w, s in p))


@settings(max_examples=400, deadline=None)
@given(texts)
def test_single_words_and_phrases_against_the_naive_twin(text: str) -> None:
    assert set(matcher(["tit", "god"], [])(text)) == naive(["tit", "god"], text)
    assert set(matcher(["hand job"], [])(text)) == naive(["hand job"], text)


@settings(max_examples=300, deadline=None)
@given(st.text(st.characters(codec=None)))
def test_no_text_is_too_odd(text: str) -> None:
    matcher(LIST, ALLOW)(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("tits, coons, Sh!ts", ["tit", "coon"]),
        ("cocks and Maine Coons, pots", ["cock"]),
        ("C0CK c0cks co**s c*ck f@ncy c**t", ["cock", "cock", "cock", "cock"]),
        ("cooock coooon 000", ["cock", "coon"]),
        ("c o c k, C-O-C-K. c o c k s", ["cock", "cock", "cock"]),
        ("a Galaxy A55, T17, t1t, 4cock4, p0t, p o t, pooot, xxx", []),  # three letters, or allowed
        ("cocktail c0cktail cock0 me@cocktail.org a b c o c k", []),
        ("a cock and a c0ck", ["cock"]),  # a plain hit is enough
    ],
)
def test_plurals_and_disguises(text: str, found: list[str]) -> None:
    assert matcher(LIST, ALLOW, disguised=True)(text) == found


def naive_disguise(entry: str, text: str) -> bool:
    """Try every way to take each character of a text: as it is, as what leetspeak means by it, or as a mask."""
    means = {"0": "o", "3": "e", "4": "a", "5": "s", "7": "t", "@": "a", "$": "s", "1": "il", "!": "il", "+": "t", "|": "il"}

    def reads(one: str) -> bool:
        return len(one) == len(entry) and all(a == b or b in means.get(a, "") for a, b in zip(one, entry, strict=True))

    def masked(one: str) -> bool:
        return len(one) == len(entry) and all(a == b or a in "*#%^@$!" for a, b in zip(one, entry, strict=True))

    return sum(map(str.isalpha, text)) > 1 and text[0].isalpha() and text[-1].isalpha() and (reads(text) or masked(text))


@settings(max_examples=600, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("shit"), st.sampled_from("shit137!*@+x")), min_size=4, max_size=4), st.integers(0, 15))
def test_disguises_against_the_naive_twin(pairs: list[tuple[str, str]], choice: int) -> None:
    text = "".join("shit"[i] if choice >> i & 1 else pairs[i][1] for i in range(4))
    assert bool(matcher(["shit"], [], disguised=True)(text)) == naive_disguise("shit", text)


def test_lists_of_users(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text("# a comment\nblimey\n\nbloody hell\r\n")
    row = profanity.Options(list=(str(path),), allow=("bloody hell boy",))
    measure = profanity.measurer(row)
    assert measure(facts("Blimey! shit")) == (1, "blimey")
    assert measure(facts("Bloody Hell", "Bloody Hell Boy")) == (1, "bloody hell")
    (tmp_path / "mine").write_text("bloody hell\n")
    both = profanity.measurer(profanity.Options(list=("default", str(path)), allow=(str(tmp_path / "mine"), "merde")))
    assert both(facts("shit! Blimey, bloody hell, merde")) == (2, "shit, blimey")
    plain = profanity.measurer(profanity.Options(disguised=False))
    assert (plain(facts("fagg0t")), profanity.measurer(profanity.Options())(facts("fagg0t"))) == ((0, ""), (1, "faggot"))
    (tmp_path / "latin").write_bytes(b"schei\xdfe\n")
    with pytest.raises(UsageError, match="no UTF-8 text"):
        profanity.measurer(profanity.Options(list=(str(tmp_path / "latin"),)))
    with pytest.raises(UsageError, match="no word list"):
        profanity.measurer(profanity.Options(list=(str(tmp_path / "nowhere"),)))


def test_a_class_does_not_lose_all_captions_by_its_name() -> None:
    measure = profanity.measurer(profanity.Options())
    bare = facts("a photo of a cock, shit")
    assert measure(bare) == (2, "cock, shit")
    assert measure(bare._replace(class_name="cock")) == (1, "shit")
    assert measure(bare._replace(class_name="Fighting_Cocks, cock")) == (1, "shit")
    assert measure(bare._replace(class_name="cockatoo")) == (2, "cock, shit")


def test_names_of_imagenet_22k() -> None:
    """WordNet's own names, 21,844 classes: of ILSVRC's thousand five hold a listed word; of all, fewer than 100 do (140 before our phrases)."""
    folder = Path(str(find_spec("timm").origin)).parent / "data/_info"  # type: ignore[union-attr]
    names = dict(line.split("\t") for line in (folder / "imagenet_synset_to_lemma.txt").read_text("utf-8").splitlines())
    find = matcher(profanity.read(profanity._default()), profanity.read(profanity.ALLOW_FILE), disguised=True)
    ilsvrc = (folder / "imagenet_synsets.txt").read_text().split()
    assert (len(names), len(ilsvrc)) == (21_844, 1000)
    assert {word for synset in ilsvrc for word in find(names[synset])} == {"cock", "dyke", "nipple"}
    assert sum(bool(find(name)) for name in names.values()) < 100
    measure = profanity.measurer(profanity.Options())
    assert [n for n in names.values() if measure(facts(f"a photo of a {n}")._replace(class_name=n))[0]] == []


def test_the_lists_are_versioned_by_their_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured again: every change of a word, on the default list, our allow-list or lists of users; no change of a path."""

    def key(**options: Any) -> str:
        spec = {"name": "profanity", **options}
        task = MeasureTask("r", 0, 0, 1, SourceSpec("folder", "i", "toy"), True, ImagePolicy(), "reference", (spec,), "f", 0)
        return digest(measure_key(task))

    ours, mine, yours = tmp_path / "allow", tmp_path / "mine", tmp_path / "yours"
    mine.write_text("blimey\n")
    yours.write_text("blimey\n")
    ours.write_text("pot\n")
    before = key()
    monkeypatch.setattr(profanity, "ALLOW_FILE", str(ours))
    changed = key()
    ours.write_text("pots\n")
    assert len({before, changed, key()}) == 3
    one = key(list=(str(mine),))
    assert one == key(list=(str(yours),)) != key(list=("default", str(mine)))
    mine.write_text("crikey\n")
    assert one != key(list=(str(mine),))


def test_the_allow_list_is_tidy() -> None:
    """Every line has a use: it is an entry of the default list, or a phrase with one (or a plural) in it."""
    allowed = profanity.read(profanity.ALLOW_FILE)
    assert len(set(allowed)) == len(allowed)
    find = matcher([*profanity.read(profanity._default()), "fan", "13"], [])
    assert [line for line in allowed if not find(line)] == []


def test_the_default_list_is_read_whole() -> None:
    entries = profanity.read(profanity._default())
    assert len(entries) == 916
    find = matcher(entries, [])
    missed = [e for e in entries if not find(f"so, {e} it is")]
    assert missed == []
