"""Concept lists and their forms; mentions against a naive search through tokens; the section against counts made by hand."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from section_subject import subject_of

from curate.report.concepts import ConceptList, default_lists, digest, forms_of, lists_with, mentions, read_list, shared_forms
from curate.report.concepts.forms import plurals, singulars, variants
from curate.report.numbers import SECTIONS
from curate.report.page import render
from curate.report.plots import colours_of
from curate.report.sections import concepts as section
from curate.report.sections import method
from curate.report.wordcount import count, tokens
from shards.core.errors import UsageError

SIZES = {
    "CIFAR-100": 100, "DTD": 47, "Caltech-101": 101, "Oxford-IIIT Pets": 37, "DomainNet REAL and CLIPART": 345,
    "Caltech camera traps": 15, "Cassava leaf disease": 5, "EuroSAT": 10, "ImageNet-1k": 1000,
}  # fmt: skip
# What classes of one set share, and is meant to: none elsewhere. Plurals stand for themselves.
SHARED = {
    "Caltech-101": {"cougar", "puma", "mountain lion", "face"},
    "ImageNet-1k": {
        "catamount", "crane", "crawfish", "crayfish", "gong", "grass snake", "horn", "maillot", "missile", "panda", "panther",
        "partridge", "polecat", "sand viper", "sunglasses", "sus scrofa", "tub",
    },
}  # fmt: skip

Counted = dict[tuple[str, str], tuple[int, int]]


def counted(captions: Sequence[str], lists: Sequence[ConceptList]) -> Counted:
    rows = mentions(count(captions), lists).to_pylist()
    return {(row["set"], row["class"]): (row["count"], row["captions"]) for row in rows}


def naive(captions: Sequence[str], lists: Sequence[ConceptList]) -> Counted:
    """Search each caption for each set: at every word not yet taken, the longest form that begins there."""
    count, holding = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for caption, concepts in itertools.product(captions, lists):
        words, forms, at, here = tokens(caption), forms_of(concepts), 0, set()
        while at < len(words):
            ends = [end for end in range(len(words), at, -1) if tuple(words[at:end]) in forms]
            for place in forms[tuple(words[at : ends[0]])] if ends else ():
                count[concepts.name, concepts.classes[place][0]] += 1
                here.add((concepts.name, concepts.classes[place][0]))
            at = ends[0] if ends else at + 1
        holding.update(here)
    return {key: (n, holding[key]) for key, n in count.items()}


def of(name: str, *classes: str) -> ConceptList:
    return ConceptList(name, tuple(tuple(part.strip() for part in line.split(",")) for line in classes))


# Lists


def test_every_list_has_its_classes() -> None:
    assert {concepts.name: len(concepts.classes) for concepts in default_lists()} == SIZES
    for concepts in default_lists():
        names = [names[0] for names in concepts.classes]
        assert len(set(names)) == len(names)
        assert not [name for names in concepts.classes for name in names if "\t" in name or name != name.strip()]


def test_no_form_is_shared_unknowingly() -> None:
    for concepts in default_lists():
        known = {
            " ".join((*words[:-1], form))
            for text in SHARED.get(concepts.name, ())
            for words in [text.split()]
            for form in variants(words[-1])
        }
        found = set(shared_forms(concepts))
        assert found <= known, concepts.name
        assert set(SHARED.get(concepts.name, ())) <= found


def test_no_synonym_is_said_twice() -> None:
    """A name that is another name's form of the same class would be dead weight."""
    for concepts in default_lists():
        for names in concepts.classes:
            words = [tuple(tokens(name.split(" (")[0])) for name in names]
            assert len(set(words)) == len(words), names


def test_a_list_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "my_set.v2.txt"
    path.write_text("\ufeff# two classes\n\nhot  dog , wiener,,\ncrane (bird)\r\ncrane (machine)\n", encoding="utf-8")
    found = read_list(str(path))
    assert found == of("my set.v2", "hot dog, wiener", "crane (bird)", "crane (machine)")
    assert counted(["Two cranes, hot dogs"], [found]) == {
        ("my set.v2", "hot dog"): (1, 1), ("my set.v2", "crane (bird)"): (1, 1), ("my set.v2", "crane (machine)"): (1, 1),
    }  # fmt: skip
    assert lists_with([str(path)]) == (*default_lists(), found)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"# nothing\n\n , \n", "no class in it"),
        (b"dog\n...\n", "line 2: '...' has no word to look for"),
        (b"dog, (a pet)\n", "line 1: '(a pet)' has no word to look for"),
        (b"dog\ncat\ndog, hound\n", "line 3: a second class 'dog'"),
        (b"dog\xff\n", "not UTF-8 text (invalid start byte at byte 3)"),
    ],
)
def test_a_list_that_cannot_be_used(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_list(str(path))
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_no_list_and_a_name_that_is_taken(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_list(str(tmp_path / "none.txt"))
    with pytest.raises(UsageError, match=": a folder"):
        read_list(str(tmp_path))
    (tmp_path / "DTD.txt").write_text("dotted\n")
    with pytest.raises(UsageError, match="there is a list 'DTD' already"):
        lists_with([str(tmp_path / "DTD.txt")])


def test_the_digest_tells_what_is_looked_for() -> None:
    one = of("a", "dog, hound", "cat")
    every = [one, of("b", "dog, hound", "cat"), of("a", "dog", "cat"), of("a", "cat", "dog, hound"), of("a", "hound, dog", "cat")]
    assert len({digest([concepts]) for concepts in every} | {digest([]), digest(every)}) == len(every) + 2
    assert digest([one]) == digest([of("a", "dog, hound", "cat")])
    assert len(digest(default_lists())) == 64


# Forms


@pytest.mark.parametrize(
    ("word", "forms"),
    [
        ("dog", {"dog", "dogs", "dog's"}),
        ("bus", {"bus", "buses"}),
        ("leaf", {"leaf", "leaves", "leafs", "leaf's"}),
        ("mouse", {"mouse", "mice", "mouses", "mouse's", "mice's"}),
        ("fox", {"fox", "foxes", "fox's"}),
        ("sheep", {"sheep", "sheeps", "sheep's"}),
        ("butterfly", {"butterfly", "butterflies", "butterfly's"}),
        ("key", {"key", "keys", "key's"}),
        ("snowman", {"snowman", "snowmen", "snowmans", "snowman's", "snowmen's"}),
        ("cactus", {"cactus", "cacti", "cactuses", "cacti's"}),
        ("grapes", {"grapes", "grape", "grape's"}),
        ("peas", {"peas", "pea", "pea's"}),
        ("men", {"men", "man", "men's", "man's"}),
        ("glasses", {"glasses"}),
        ("lens", {"lens", "lenses"}),
        ("3d", {"3d", "3d's"}),
        ("été", {"été", "été's"}),
        ("tv", {"tv", "tvs", "tv's"}),
    ],
)
def test_forms(word: str, forms: set[str]) -> None:
    assert set(variants(word)) == forms
    assert variants(word)[0] == word


def test_rules_make_no_other_word() -> None:
    """Plurals made of the singulars found, and singulars of plurals, come back; short words do not become function words."""
    for word in (
        "dog",
        "bus",
        "fox",
        "church",
        "potato",
        "piano",
        "berry",
        "key",
        "knife",
        "wolf",
        "watch",
        "box",
        "photo",
        "horse",
        "tie",
        "shoe",
    ):
        assert any(word in singulars(plural) for plural in plurals(word)), word
    made = {
        form for word in ("toes", "does", "uses", "is", "as", "safe", "glass", "this", "news", "shorts", "pants") for form in variants(word)
    }
    assert made.isdisjoint({"to", "do", "us", "i", "a", "saves", "thi", "new", "short", "pant"})


# Mentions

CASES = of("pets", "dog", "hot dog, wiener", "dog house", "cat, kitty cat", "sea lion", "lion", "mouse", "New York", "York terrier")


@pytest.mark.parametrize(
    ("caption", "found"),
    [
        ("A dog's dinner: two hot-dogs & a dog", {"dog": 2, "hot dog": 1}),
        ("Hot dog house", {"hot dog": 1}),  # it begins first
        ("dog house, dog_houses", {"dog house": 2}),  # and this is longer
        ("kitty cats and cat", {"cat": 2}),
        ("SEA LIONS, a lion; the sea", {"sea lion": 1, "lion": 1}),
        ("mice? MICE! mouse’s", {"mouse": 3}),
        ("new york terriers", {"New York": 1}),
        ("hot", {}),
        ("hotdog doggy concatenate", {}),
        ("", {}),
        ("New York York terrier York", {"New York": 1, "York terrier": 1}),
        ("hot dog dog house dog", {"hot dog": 1, "dog house": 1, "dog": 1}),
        ("été dog漢字 dog", {"dog": 1}),
    ],
)
def test_mentions_by_hand(caption: str, found: dict[str, int]) -> None:
    expected = {("pets", name): (n, 1) for name, n in found.items()}
    assert counted([caption], [CASES]) == expected == naive([caption], [CASES])


def test_forms_do_not_reach_over_captions_and_sets_do_not_see_each_other() -> None:
    both = [of("a", "hot dog"), of("b", "dog", "dog days")]
    assert counted(["hot", "dog", "hot dog days"], both) == {("a", "hot dog"): (1, 1), ("b", "dog"): (1, 1), ("b", "dog days"): (1, 1)}
    assert counted(["dog dog dog", "dog"], both) == {("b", "dog"): (4, 2)}


def test_shared_forms_count_for_each_class() -> None:
    cranes = of("c", "crane (bird)", "crane (machine), tower crane")
    assert counted(["crane, tower cranes"], [cranes]) == {("c", "crane (bird)"): (1, 1), ("c", "crane (machine)"): (2, 1)}
    assert shared_forms(cranes) == {"crane": ["crane (bird)", "crane (machine)"], "cranes": ["crane (bird)", "crane (machine)"]}


def test_a_form_that_is_not_taken_blocks_nothing() -> None:
    """`a a` at the second word overlaps the first mention; the third word is free."""
    assert counted(["a a a", "a a a a a"], [of("s", "a, a a")]) == {("s", "a"): (5, 2)}


def test_nothing_to_find() -> None:
    assert counted([], default_lists()) == {}
    assert counted(["", "…"], default_lists()) == {}
    assert mentions(count(["a dog"]), [of("a", "cat")]).num_rows == 0


WORDS = ["a", "b", "c", "d", "as", "b's", "é", "A-b", "c_d", "."]
CAPTIONS = st.lists(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join), max_size=6)
NAMES = st.lists(st.sampled_from(["a", "b", "c", "é", "zz"]), min_size=1, max_size=4).map(" ".join)
LISTS = st.lists(
    st.lists(st.lists(NAMES, min_size=1, max_size=3), min_size=1, max_size=5, unique_by=lambda names: names[0]), min_size=1, max_size=3
)


@given(CAPTIONS, LISTS)
@settings(max_examples=300, deadline=None)  # the first example may compile the loop
def test_mentions_are_the_naive_ones(captions: list[str], lists: list[list[list[str]]]) -> None:
    sets = [ConceptList(f"set {i}", tuple(map(tuple, classes))) for i, classes in enumerate(lists)]
    assert counted(captions, sets) == naive(captions, sets)


def test_captions_made_of_class_names() -> None:
    """All default lists at once: names, their forms and pieces of them, in captions of every length."""
    rng = random.Random(0)
    forms = [" ".join(form) for concepts in default_lists() for form in forms_of(concepts)]
    words = [*{word for form in forms for word in form.split()}, "the", "of", "and", "École", "漢字"]
    pick = lambda: rng.choice(forms) if rng.random() < 0.6 else rng.choice(words)
    captions = [" ".join(pick() for _ in range(rng.randrange(9))).title() for _ in range(3000)]
    found = counted(captions, default_lists())
    assert found == naive(captions, default_lists())
    assert len(found) > 1600


# The section

ROWS = [
    *({"source": "pets", "uid": f"p{i}", "caption": caption} for i, caption in enumerate(["a dog and a dog", "dogs", "my cat", "nothing"])),
    *({"source": "web", "uid": f"w{i}", "caption": "a fox <script>"} for i in range(12)),
    {"source": "bare", "uid": "b", "caption": None},
]


def test_the_section_by_hand(tmp_path: Path) -> None:
    with subject_of(ROWS, tmp_path) as subject:
        values = section.collect(subject)
    assert json.loads(json.dumps(values)) == values
    assert (values["captions"], values["equal"]) == ({"pets": 4, "web": 12, "bare": 0}, 4)
    traps = next(one for one in values["sets"] if one["name"] == "Caltech camera traps")
    pets, web, bare = traps["sources"]
    assert [covered["classes"] for covered in pets["covered"]] == [2, 0, 0]
    assert [covered["classes"] for covered in web["covered"]] == [1, 1, 0]
    assert pets["covered"][0] == {"least": 1, "classes": 2, "share": round(2 / 15, 6)}
    assert (pets["mentions"], pets["per_1000_captions"], web["per_1000_captions"]) == (4, 1000.0, 1000.0)
    assert pets["head"] == [
        {"class": "dog", "mentions": 3, "captions": 2, "share": 0.5}, {"class": "cat", "mentions": 1, "captions": 1, "share": 0.25},
    ]  # fmt: skip
    assert (pets["ranked"], pets["tail"], pets["unmentioned"], len(pets["never"])) == ([2, 1], [], 13, 13)
    assert (pets["equal"], web["equal"]) == (2.0, 1.0)
    assert (bare["mentions"], bare["per_1000_captions"], bare["equal"], bare["equal_share"]) == (0, None, None, None)
    assert traps["unmentioned"] == 12 == len(traps["never"])
    assert [column["name"] for column in traps["table"]["columns"]] == ["class", "mentions", "captions", "pets", "web", "bare"]
    assert [row for row in traps["table"]["rows"] if row[1]] == [["cat", 1, 1, 1, 0, 0], ["dog", 3, 2, 2, 0, 0], ["fox", 12, 12, 0, 12, 0]]
    figures = section.figures(values, colours_of(subject.sources))
    assert {"concepts-coverage", "concepts-5"} <= set(figures)
    assert "concepts-6" not in figures  # nobody mentions cassava


def test_heads_and_tails_are_apart(tmp_path: Path) -> None:
    names = [names[0] for names in default_lists()[0].classes][:25]
    rows = [{"source": "a", "uid": f"{i} {k}", "caption": name} for i, name in enumerate(names) for k in range(25 - i)]
    with subject_of(rows, tmp_path) as subject:
        one = section.collect(subject)["sets"][0]["sources"][0]
    assert [row["class"] for row in one["head"]] == names[:10]
    assert [row["class"] for row in one["tail"]] == names[-10:]
    assert one["ranked"] == list(range(25, 0, -1))


def test_the_page_is_small_safe_and_says_what_the_json_says(tmp_path: Path) -> None:
    """Ten sources that mention every class, and a list of hostile names."""
    captions = [names[0] for concepts in default_lists() for names in concepts.classes]
    rows = [{"source": f"source {i}", "uid": f"{i} {k}", "caption": caption} for i in range(10) for k, caption in enumerate(captions)]
    (tmp_path / "<b>.txt").write_text("<script>alert(1)</script>\n\u202egod, dog\n")
    with subject_of(rows, tmp_path) as subject:
        values = section.collect(dataclasses.replace(subject, concepts=lists_with([str(tmp_path / "<b>.txt")])))
        report = {name: {} for name in SECTIONS} | {"method": method.collect(subject), "concepts": values}
    report["sources"] = [{"name": source, "samples": 1} for source in values["captions"]]
    page = render(report, {})
    assert len(page) < 500_000
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    shown = page[page.index('<section id="concepts">') :].partition("</section>")[0]
    printed = {float(number) for number in re.findall(r'<data value="([^"]*)"', shown)}
    assert printed <= set(numbers_of(values))
    assert len(printed) > 20


def numbers_of(value: Any) -> Iterator[float]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from numbers_of(inner)
    elif isinstance(value, int | float):
        yield float(value)


def test_no_captions_no_section(tmp_path: Path) -> None:
    with subject_of([{"source": "bare", "uid": "b", "caption": None}], tmp_path) as subject:
        values = section.collect(subject)
    assert values == {}
    assert section.figures(values, {"bare": "#000000"}) == {}


def test_expected_classes_are_the_mean_over_all_samples() -> None:
    """Every way to draw 3 of 6 captions, counted out."""
    holders = [{0, 1, 2, 3, 4}, {0}, {1, 5}, {2, 3, 4}]
    draws = list(itertools.combinations(range(6), 3))
    mean = sum(sum(bool(held & set(drawn)) for held in holders) for drawn in draws) / len(draws)
    assert section.expected_classes([len(held) for held in holders], 6, 3) == pytest.approx(mean, abs=1e-12)
    assert section.expected_classes([5, 1], 6, 6) == 2
    assert section.expected_classes([], 6, 6) == 0
    assert section.expected_classes([10**6], 10**9, 1000) == pytest.approx(1 - (1 - 1e-3) ** 1000, abs=1e-5)


def test_labels_of_the_coverage_chart_have_room() -> None:
    """As wide as DejaVu Sans, the widest of the page's fonts, draws them; the labels end 3.5 points left of the axis."""
    import textwrap

    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    from curate.report.sections.concepts import LABEL, room

    font = FontProperties(family="DejaVu Sans")
    for name in ("DomainNet REAL and CLIPART (345)", "Caltech camera traps (16)", "ImageNet-1k (1,000)", "MMMMMMMM WWWW (12)", "DTD (47)"):
        label = textwrap.fill(name, LABEL)
        widest = max(TextPath((0, 0), line, size=9, prop=font).get_extents().width for line in label.split("\n"))
        assert widest + 7 <= 72 * room([label]), name


def test_one_class_has_no_chart_from_head_to_tail() -> None:
    from curate.report.sections.concepts import figures

    source = {"source": "a", "captions": 5, "ranked": [5], "equal_share": 1.0}
    values = {"equal": 5, "captions": {"a": 5}, "sets": [{"name": "one", "classes": 1, "sources": [source]}]}
    assert set(figures(values, {"a": "#0072b2"})) == {"concepts-coverage"}
