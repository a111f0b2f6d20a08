"""What cleaning leaves out on request: addresses, handles, RedCaps' rules; and the flags that ask for it."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.captions.clean import Clean, clean, cleaner
from curate.captions.rules import without_brackets
from curate.config import BuildConfig, resolve
from curate.recipe import Recipe
from shards.core.config import dump, load
from shards.core.errors import UsageError

URLS = cleaner(Clean(urls="drop"))
REDCAPS = cleaner(Clean(rules="redcaps"))


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("Klimt http://www.x.org/2013/05/14/klimt-at-home/?a=1&b=%20#c", "Klimt"),
        ("see https://x.org/a, then www.y.org.", "see , then ."),
        ("a cat (http://x.org/cat) on a mat", "a cat on a mat"),
        ("a cat <https://x.org/cat> on a mat", "a cat on a mat"),
        ("more at flickr.com/photos/me/12 and bbc.co.uk/news", "more at and"),
        ("Booking.com, 3.5/5, and/or, St.Paul/Minneapolis, e.g./i.e.", "Booking.com, 3.5/5, and/or, St.Paul/Minneapolis, e.g./i.e."),
        ("HTTPS://X.ORG", ""),
        ("&#104;ttp://x.org/a b", "b"),
    ],
)
def test_addresses_go(raw: str, cleaned: str) -> None:
    assert URLS(raw) == cleaned
    assert clean(raw) == (clean(raw) if cleaned == raw else raw.replace("&#104;", "h"))  # by default they stay


@pytest.mark.parametrize(
    ("raw", "masked", "dropped"),
    [
        ("an egg via @paper_kawaii.", "an egg via <usr>.", "an egg via ."),
        ("(@me.and.you) @ the beach", "(<usr>) @ the beach", "@ the beach"),
        ("me@x.org and a@b", "me@x.org and a@b", "me@x.org and a@b"),
        ("by @a@b.c@d", "by <usr>", "by"),
        ("@東京 shot", "<usr> shot", "shot"),
    ],
)
def test_handles_are_masked_or_go(raw: str, masked: str, dropped: str) -> None:
    assert cleaner(Clean(handles="mask"))(raw) == masked
    assert cleaner(Clean(handles="drop"))(raw) == dropped
    assert clean(raw) == raw


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("[OC] ITAP of the Taj Mahal (4000x3000)", "itap of the taj mahal"),
        ("USSR time factory [602px × 400px]", "ussr time factory"),
        ("Sold 1,000 units", "sold 1,000 units"),  # theirs: soldunits
        ("Dawn 640 x 480 at sea, 3*4*5", "dawn at sea,"),  # theirs: dawnat
        ("a 4x4x2 truck, 5ftx5ft, v2x4", "a truck, 5ftx5ft, v2x4"),
        ("nested (a [b (c)] d) end", "nested end"),  # theirs: nested d) end
        ("open ( for ever, :) smile", "open smile"),
        ("shut ) and [unpaired", "shut ) and [unpaired"),
        ("by @Some.One. me@x.org", "by <usr>. me@x.org"),  # theirs: by <usr> me<usr>
        ("Ｗｉｄｅ Café Zürich ½ — love❤️you …", "wide cafe zurich 1/2 - love you ..."),  # theirs: 12, loveyou
        ("A <PERSON> &amp; a &lt;b&gt;dog&lt;/b&gt;", "a <person> & a dog"),
        ("猫 (cat)", ""),
        ("4★x★5", ""),
    ],
)
def test_rules_of_redcaps(raw: str, cleaned: str) -> None:
    assert REDCAPS(raw) == cleaned


def naive_brackets(text: str) -> str:
    """Cut innermost pairs until there is none; by then every pair of the text is gone."""
    while (cut := re.sub(r"[\[(][^\[\]()]*[\])]", "", text)) != text:
        text = cut
    return text


@settings(max_examples=300, deadline=None)
@given(st.text("ab()[]", max_size=30))
def test_brackets_against_the_naive_twin(text: str) -> None:
    assert without_brackets(text) == naive_brackets(text)


PIECES = [
    "http://",
    "www.",
    "x.com/",
    "@",
    "a",
    "<usr>",
    "(",
    ")",
    "[",
    "]",
    "<b>",
    "</b>",
    "<",
    ">",
    "&lt;",
    "&#64;",
    "&amp;",
    "1",
    "x",
    "×",
]
PIECES += ["½", "❤", "é", "e\u0301", "Ã©", "’", " ", ".", "/", "\u200d", "\ud83d", "\n"]
OPTIONS = [Clean(u, h, r) for u in ("keep", "drop") for h in ("keep", "drop", "mask") for r in ("", "redcaps")]  # type: ignore[arg-type]
texts = st.one_of(st.text(st.characters(codec=None)), st.lists(st.sampled_from(PIECES), max_size=16).map("".join))


@settings(max_examples=500, deadline=None)
@given(texts, st.sampled_from(OPTIONS))
def test_any_text_is_cleaned_once_and_for_all(text: str, options: Clean) -> None:
    once = cleaner(options)(text)
    assert cleaner(options)(once) == once == clean(once)
    once.encode("ascii" if options.rules else "utf-8")
    if options.handles != "keep" and "@" in once:
        assert not re.search(r"(?<![\w.@/])@\w", once)


@pytest.mark.parametrize(
    "text", ["(" * 50_000 + ")" * 50_000, "[(" * 30_000, "1x" * 30_000, "@a." * 30_000, "http://" * 20_000, "www.,.," * 9000]
)
def test_hostile_text_ends(text: str) -> None:
    for options in OPTIONS:
        cleaner(options)(text)


def test_flags_and_recipe() -> None:
    flags = BuildConfig(source="folder", input=(".",), samples="all", clean_urls="drop", clean_rules="redcaps")
    recipe = resolve(flags)
    assert recipe.clean == Clean(urls="drop", rules="redcaps")
    assert dump(recipe)["clean"] == {"urls": "drop", "handles": "keep", "rules": "redcaps"}
    assert load(Recipe, dump(recipe)) == recipe
    assert resolve(dataclasses.replace(flags, clean_urls=None, clean_rules=None)).clean is True
    with pytest.raises(UsageError, match="--no-clean"):
        resolve(dataclasses.replace(flags, clean=False))
