"""WIT (Wikipedia-based Image Text): its official TSV, plain or gzipped, columns found by the header.

A sample's id is its page's URL, a line feed, and its image's URL. A record's captions are the reference (under the
picture, in the page's language), the attribution (from Wikimedia Commons: the part in the page's language, without its
`English: `) and the alternative text, in the order of `caption_fields`; empty ones stand, so that the recipe's `empty`
says whether the next one steps in. Records in other languages than `languages` are left out as `not_selected`.
The page's own text (`context_…`) is not kept. WIT states no licence per picture.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from curate.sources import _wit
from curate.sources.base import Input, Record, list_inputs, meta_json
from shards.core.config import option
from shards.core.errors import TornFileError, UsageError
from shards.tables.values import storable

VERSION = 2
IMAGES = "pool"
COLUMNS = (
    ("language", "string"), ("mime_type", "string"), ("original_width", "int32"), ("original_height", "int32"),
    ("is_main_image", "bool"), ("attribution_passes_lang_id", "bool"), ("page_changed_recently", "bool"),
)  # fmt: skip
SNIFFED = 200
_CAPTIONS = {
    "reference": "caption_reference_description",
    "attribution": "caption_attribution_description",
    "alt": "caption_alt_text_description",
}
# What Commons writes before a description, and the language it stands for.
_AUTONYMS = {
    "English": "en", "Deutsch": "de", "Français": "fr", "Español": "es", "Italiano": "it", "Português": "pt", "Русский": "ru",
    "日本語": "ja", "中文": "zh", "한국어": "ko", "Nederlands": "nl", "Polski": "pl", "Svenska": "sv", "Українська": "uk", "Čeština": "cs",
    "العربية": "ar", "Català": "ca", "Suomi": "fi", "Magyar": "hu", "Türkçe": "tr", "Norsk": "no", "Norsk bokmål": "no",
    "Norsk nynorsk": "nn", "Dansk": "da", "Română": "ro", "Ελληνικά": "el", "עברית": "he", "Tiếng Việt": "vi", "Български": "bg",
    "Hrvatski": "hr", "Српски": "sr", "Српски / srpski": "sr", "Slovenčina": "sk", "Slovenščina": "sl", "Eesti": "et", "Lietuvių": "lt",
    "Latviešu": "lv", "فارسی": "fa", "Bahasa Indonesia": "id", "Bahasa Melayu": "ms", "हिन्दी": "hi", "বাংলা": "bn", "ไทย": "th",
    "Galego": "gl", "Euskara": "eu", "Esperanto": "eo", "Latina": "la", "Македонски": "mk", "Беларуская": "be", "Հայերեն": "hy",
    "ქართული": "ka", "Azərbaycanca": "az", "Қазақша": "kk", "தமிழ்": "ta", "اردو": "ur",
}  # fmt: skip
_PREFIX = re.compile(rf"(?:^|(?<=\s))({'|'.join(sorted(map(re.escape, _AUTONYMS), key=len, reverse=True))})\s?[:：]\s*")


@dataclass(frozen=True)
class Options:
    """Which records, and which of a record's three captions."""

    languages: tuple[str, ...] = option((), "page languages to keep, such as en de (default: all)")
    caption_fields: tuple[Literal["reference", "attribution", "alt"], ...] = option(
        ("reference", "attribution", "alt"), "captions in order of preference; name one alone for no fallback"
    )
    attribution: Literal["checked", "any"] = option("checked", "attribution only where WIT found it in the page's language, or any")


def inputs(pattern: str, options: Options) -> list[Input]:
    """Return the TSV files, after a look at each one's header and first records."""
    if not options.caption_fields:
        raise UsageError("caption_fields: none", ", ".join(_CAPTIONS))
    for code in options.languages:
        if not _wit.SHAPES["language"].fullmatch(code):
            raise UsageError(f"languages: found {code!r}", "codes as Wikipedia has them, such as en, zh-TW")
    files = list_inputs(pattern, (".tsv", ".tsv.gz"))
    for file in files:
        _sniff(file.path)
    return files


def layout(input: Input, options: Options) -> str:
    """Return how many columns the file has, and in what order captions are taken."""
    names = _wit.header(input.path)
    order = "" if names == _wit.COLUMNS else ", not in WIT's order"
    return f"TSV with a header of {len(names)} columns{order}; caption from {', else '.join(options.caption_fields)}"


def read(input: Input, options: Options) -> Iterator[Record]:
    """Yield a record per image and page; a damaged one has the status bad_record.

    Raises:
        UsageError: the header is not WIT's.
        TornFileError: the file is cut off; whole records before were yielded.
    """
    for row, (values, problem) in enumerate(_wit.rows(input.path)):
        if problem:
            yield Record(f"{input.name}:{row}", (), row, status="bad_record", detail=storable(f"{problem}: {values[''][:120]!r}"))
        else:
            yield _record(values, row, options)


def _sniff(path: str) -> None:
    problems = []
    try:
        for _, problem in islice(_wit.rows(path), SNIFFED):
            if not problem:
                return
            problems.append(problem)
    except TornFileError:
        return  # `read` meets it again, where --bad-files decides
    if problems:
        raise UsageError(
            f"{path}: none of the first {len(problems)} records fits the header: {problems[0]}", " ".join(_wit.COLUMNS), "check the columns"
        )


def _record(values: dict[str, str], row: int, options: Options) -> Record:
    language = values["language"]
    passes = options.attribution == "any" or _flag(values["attribution_passes_lang_id"]) is True
    values[_CAPTIONS["attribution"]] = of_language(values[_CAPTIONS["attribution"]], language) if passes else ""
    captions = tuple(values[_CAPTIONS[name]] for name in options.caption_fields)
    source_id = f"{values['page_url']}\n{values['image_url']}"
    left_out = bool(options.languages) and language not in options.languages
    status, detail = ("not_selected", f"language {language}") if left_out else ("", "")
    meta = meta_json(_meta(values))
    return Record(source_id, captions, row, (values["image_url"],), status=status, detail=detail, meta=meta)


def _meta(values: dict[str, str]) -> dict[str, Any]:
    kept = {k: v for k, v in values.items() if k not in _CAPTIONS.values() and not k.startswith("context_") and not k.endswith("_url")}
    for name, kind in COLUMNS:
        if kind == "bool":
            kept[name] = _flag(values.get(name, ""))  # type: ignore[assignment]
        elif kind == "int32":
            text = values.get(name, "").partition(".")[0]
            kept[name] = int(text) if text and int(text) < 2**31 else None  # type: ignore[assignment]
    return kept


def _flag(text: str) -> bool | None:
    return {"true": True, "false": False}.get(text.lower())


def of_language(description: str, language: str) -> str:
    """Return the part of a Commons description that is in a language, without its prefix; else its first part.

    A description without a prefix such as `English: ` is returned whole.
    """
    prefixes = list(_PREFIX.finditer(description))
    if not prefixes or prefixes[0].start() > 0:
        return description
    parts: dict[str, str] = {}
    marks = [m for i, m in enumerate(prefixes) if _AUTONYMS[m[1]] not in {_AUTONYMS[n[1]] for n in prefixes[:i]}]
    for mark, following in zip(marks, [*marks[1:], None], strict=True):
        parts[_AUTONYMS[mark[1]]] = description[mark.end() : following.start() if following else None].strip()
    return parts.get(language.partition("-")[0], next(iter(parts.values())))
