"""repetition, alphabetic, language: columns against naive twins, the library itself, and sentences labelled by hand."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_filters import decide, facts

from curate.filters import alphabetic, language, repetition
from curate.filters.base import Facts
from shards.core.config import load
from shards.core.errors import UsageError

SENTENCES = {
    "en": ["A brown dog runs across the wet beach at sunset", "Two children playing football in the park"],
    "de": ["Ein brauner Hund läuft am Abend über den nassen Strand", "Der Küchentisch meiner Großmutter mit frischem Brot"],
    "fr": ["Un chien brun court sur la plage mouillée au coucher du soleil", "La table de cuisine de ma grand-mère avec du pain frais"],
    "es": ["Un perro marrón corre por la playa mojada al atardecer", "Primer plano de una rosa roja con gotas de agua"],
    "it": ["Un cane marrone corre sulla spiaggia bagnata al tramonto", "Due bambini giocano a calcio nel parco"],
    "pt": ["Um cachorro marrom corre pela praia molhada ao pôr do sol", "Cadeira antiga de madeira, pintada à mão, frete grátis"],
    "nl": ["Een bruine hond rent bij zonsondergang over het natte strand", "Twee kinderen voetballen in het park"],
    "pl": ["Brązowy pies biegnie o zachodzie słońca po mokrej plaży", "Stary most nad rzeką zimą"],
    "ru": ["Крупный план красной розы с каплями воды", "Двое детей играют в футбол в парке"],
    "tr": ["Kahverengi bir köpek gün batımında ıslak sahilde koşuyor", "Parkta futbol oynayan iki çocuk"],
    "ja": ["夕暮れの濡れた浜辺を走る茶色い犬", "公園でサッカーをする二人の子供"],
    "zh": ["两个孩子在公园里踢足球", "奶奶厨房的桌子上放着新鲜的面包"],
    "ar": ["كلب بني يركض على الشاطئ المبلل عند الغروب", "طفلان يلعبان كرة القدم في الحديقة"],
}


@pytest.mark.parametrize(
    ("caption", "words", "pairs"),
    [
        ("", 0, 0),
        ("a cat", 0, 0),
        ("Winner, winner!", 1 / 2, 0),
        ("buy shoes, buy shoes, buy shoes", 4 / 6, 3 / 5),
        ("A surfer rides a wave on a large surfboard", 2 / 9, 0),
        ("кот и Кот", 1 / 3, 0),
    ],
)
def test_repeated_shares(caption: str, words: float, pairs: float) -> None:
    assert repetition.measurer(repetition.Options())(facts(caption)) == (words, pairs)


def said_before(things: list[Any]) -> float:
    """Look back at each thing."""
    return sum(thing in things[:i] for i, thing in enumerate(things)) / max(1, len(things))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "A", "b", "c1", "é"]), max_size=9), st.sampled_from([None, 0.0, 0.2, 0.5]), st.sampled_from([None, 0.25])
)
def test_repetition_against_the_naive_twin(parts: list[str], words: float | None, pairs: float | None) -> None:
    folded = [part.lower() for part in parts]
    shares = said_before(folded), said_before([folded[i : i + 2] for i in range(len(folded) - 1)])
    caption = ", ".join(parts)
    assert repetition.measurer(repetition.Options())(facts(caption)) == shares
    refused = (words is not None and shares[0] > words) or (pairs is not None and shares[1] > pairs)
    assert decide(repetition, [facts(caption)], max_words=words, max_pairs=pairs)[0][0] == refused


def test_the_border_of_repetition_is_kept() -> None:
    assert decide(repetition, [facts("a b c d a"), facts("a b c a")]) == [
        (False, "0.20 of words, 0.00 of pairs said before"),
        (True, "0.25 of words, 0.00 of pairs said before"),
    ]


@pytest.mark.parametrize(
    ("caption", "share"),
    [
        ("", 0),
        (" ", 0),
        ("a cat", 1),
        ("IMG_20190412", 3 / 12),
        ("a 1", 1 / 2),
        ("$9.99 !", 0),
        ("猫 犬", 1),
        ("हिन्दी", 1),
        ("😀😀 ok", 1 / 2),
        ("e\u0301", 1),
    ],
)
def test_shares_of_letters(caption: str, share: float) -> None:
    assert alphabetic.measurer(alphabetic.Options())(facts(caption)) == (share,)


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")), st.sampled_from([0.0, 0.5, 1.0]))
def test_alphabetic_against_the_naive_twin(caption: str, least: float) -> None:
    seen = [c for c in caption if not c.isspace()]
    share = sum(unicodedata.category(c) in ("Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me") for c in seen) / max(1, len(seen))
    assert alphabetic.measurer(alphabetic.Options())(facts(caption)) == (share,)
    assert decide(alphabetic, [facts(caption)], min=least)[0][0] == (share < least)


def test_languages_of_sentences() -> None:
    measure = language.measurer(language.Options())
    rows = [(code, *measure(facts(text))) for code, texts in SENTENCES.items() for text in texts]
    assert [row for row in rows if row[0] != row[1] or row[2] < 0.5] == []


def test_the_library_itself_says_so() -> None:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    peer = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    assert set(peer.labels) >= language.LANGUAGES
    measure = language.measurer(language.Options())
    for text in [text for texts in SENTENCES.values() for text in texts] + ["dog", "Un chat", "x" * 9999, "\ud83d a"]:
        code, confidence = peer.classify(text)
        assert measure(facts(text)) == (code, pytest.approx(confidence, abs=1e-4))
    assert [measure(facts(text)) for text in ("", "12:30", "😀 !")] == [("", 0.0)] * 3


def test_languages_are_kept_dropped_or_unsure() -> None:
    rows = [facts(SENTENCES["en"][0]), facts(SENTENCES["de"][0]), facts("dog"), facts("12")]
    assert [r for r, _ in decide(language, rows)] == [False, True, False, False]
    assert [r for r, _ in decide(language, rows, allowed=("en", "de"))] == [False] * 4
    assert [r for r, _ in decide(language, rows, unsure="drop")] == [False, True, True, True]
    assert [r for r, _ in decide(language, rows, min_confidence=0.0)] == [False, True, True, True]
    details = [d for _, d in decide(language, rows)]
    assert details[1].startswith("de (0.9")
    assert details[3] == " (0.00)"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (lambda: language.Options(allowed=("english",)), "english"),
        (lambda: language.Options(allowed=()), "none"),
        (lambda: load(language.Options, {"min_confidence": 2}), "found 2"),
        (lambda: load(alphabetic.Options, {"min": float("nan")}), "found nan"),
        (lambda: load(repetition.Options, {"max_pairs": -0.1}), "found -0.1"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        options()


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(codec=None)))
def test_no_text_is_too_odd(text: str) -> None:
    row = Facts("toy", text, (text,), text, 1, 1, 1, 1, "JPEG", 1, "")
    for module in (repetition, alphabetic, language):
        assert len(module.measurer(module.Options())(row)) == len(module.COLUMNS)
