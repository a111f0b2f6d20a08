"""Class names in real captions, against a regular expression; the lists against class names that others published."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path

import pytest
from real_captions import by_origin

from curate.report.concepts import ConceptList, default_lists, forms_of, mentions
from curate.report.wordcount import count, tokens


@pytest.fixture(scope="module")
def origins(realdata: Path) -> dict[str, list[str]]:
    return by_origin(realdata)


def list_named(name: str) -> ConceptList:
    return next(concepts for concepts in default_lists() if concepts.name == name)


LISTS = [pytest.param(one, id=one.name, marks=[pytest.mark.slow] if len(one.classes) == 1000 else []) for one in default_lists()]


@pytest.mark.parametrize("concepts", LISTS)
def test_real_captions_hold_what_a_regular_expression_finds(origins: dict[str, list[str]], concepts: ConceptList) -> None:
    """Words joined by single spaces, and an alternation of all forms, the longest first."""
    forms = {" ".join(form): places for form, places in forms_of(concepts).items()}
    pattern = re.compile(r"(?<!\S)(?:" + "|".join(map(re.escape, sorted(forms, key=len, reverse=True))) + r")(?!\S)")
    captions = [caption for every in origins.values() for caption in every]
    expected: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for caption in captions:
        places = [place for found in pattern.findall(" ".join(tokens(caption))) for place in forms[found]]
        for place in places:
            expected[concepts.classes[place][0]][0] += 1
        for place in set(places):
            expected[concepts.classes[place][0]][1] += 1
    rows = mentions(count(captions), [concepts]).to_pylist()
    assert {row["class"]: [row["count"], row["captions"]] for row in rows} == expected


def test_what_sets_origins_apart(origins: dict[str, list[str]]) -> None:
    """Photographs of everyday life name people, rooms and vehicles; subreddits of birds and mushrooms name those."""

    def share(origin: str, name: str, one: str) -> float:
        rows = mentions(count(origins[origin]), [list_named(name)]).to_pylist()
        return sum(row["captions"] for row in rows if row["class"] == one) / len(origins[origin])

    for other in ("alttext", "cc3m", "coco", "flickr30k"):
        assert share("redcaps", "CIFAR-100", "mushroom") > 10 * share(other, "CIFAR-100", "mushroom")
        assert share("redcaps", "ImageNet-1k", "hummingbird") > share(other, "ImageNet-1k", "hummingbird")
    assert share("flickr30k", "CIFAR-100", "man") > 0.3 > 10 * share("redcaps", "CIFAR-100", "man")
    assert share("flickr30k", "DTD", "striped") > 10 * share("redcaps", "DTD", "striped")
    assert share("coco", "DomainNet REAL and CLIPART", "pizza") > 10 * share("cc3m", "DomainNet REAL and CLIPART", "pizza")


def test_lists_know_the_class_names_of_clip(realdata: Path) -> None:
    """CLIP's prompts name each class: by a name or synonym of the same place in our list, but for those put otherwise."""
    published = json.loads((realdata / "reference/en_classnames.json").read_text())
    for name, theirs, otherwise in (("ImageNet-1k", published["imagenet1k"], 48), ("Oxford-IIIT Pets", published["pets"], 0)):
        forms, concepts = forms_of(list_named(name)), list_named(name)
        assert len(theirs) == len(concepts.classes)
        known = [place in forms.get(tuple(tokens(one)), ()) for place, one in enumerate(theirs)]
        assert known.count(False) == otherwise, [one for one, found in zip(theirs, known, strict=True) if not found]
    theirs = {tuple(tokens(one)) for one in published["caltech101_vtab"]}
    assert len(theirs & set(forms_of(list_named("Caltech-101")))) > 90
    assert len(published["eurosat"]) == len(list_named("EuroSAT").classes)
