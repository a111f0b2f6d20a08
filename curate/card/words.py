"""What was done to the data, and what it does not say: sentences from recipe and manifest, for the card and for Croissant.

Nothing is claimed that neither of them states. The texts are plain; names from outside are escaped where they are printed.
"""

from __future__ import annotations

from typing import Any

from curate.card.facts import Facts
from curate.report.sections.ledger import why
from shards.index import BUILDER

CAPTIONS = {
    "first": "the first of its captions",
    "longest": "the longest of its captions",
    "sampled": "one of its captions, drawn by its uid",
    "each": "one caption: each caption of an image makes a sample",
}
PREFERRED = {"rank": "the one of lowest rank", "resolution": "the one with most pixels", "caption": "the one with the longest caption"}
NO_IMAGE = ("image_missing", "failed_to_download", "failed_to_resize", "lost")


def steps(facts: Facts) -> list[str]:
    """Return what the build did to its inputs, in order; nothing where there is no recipe."""
    recipe = facts.recipe
    if not recipe:
        return []
    sentences = [_cleaning(recipe.get("clean")), _images(recipe.get("image"))]
    sentences += [_filter(name, options) for name, options in facts.filters.items()]
    sentences += _duplicates(recipe.get("dedup") or {})
    if facts.manifest.notes.get("excluded"):
        sentences.append("Images near those of test sets were dropped (see below).")
    if holdout := recipe.get("holdout"):
        sentences.append(f"{holdout:.2%} of the samples, chosen by their uid, were held out.")
    if balance := recipe.get("balance"):
        sentences.append(f"The order is balanced by {balance.get('by')}: so is every prefix of the set.")
    if spare := sum(s.get("spare", 0) for s in facts.manifest.sources.values()):
        sentences.append(f"{spare:,} more samples met all this; they are spare, since the size that was asked for is reached without them.")
    quotas = any(s.get("samples") for s in recipe.get("sources") or [])
    drawn = "" if balance else f": the set is a random draw{' within each source' if quotas else ''} from all that met this"
    sentences.append(f"A sample's place in the set follows from a hash of seed {facts.manifest.seed} and its uid{drawn}.")
    return sentences


def limits(facts: Facts) -> list[str]:
    """Return what a user of the set should know, each sentence from a fact of recipe or manifest."""
    manifest, filters = facts.manifest, facts.filters
    sentences = []
    if manifest.builder == BUILDER:  # tars that were made elsewhere
        sentences.append("The tars were made elsewhere and only indexed: their sources, filters and licences are not known here.")
    elif not facts.recipe:
        sentences.append("No recipe lies beside the shards: filters and duplicates are those of the sets this one was made of.")
    sentences += [f"Only the first {limit:,} records of each source were read."] if (limit := facts.recipe.get("limit")) else []
    sentences += _not_online(facts)
    if facts.recipe:
        sentences += [_language(filters), _safety(filters)]
        sentences += ["No step looked for people, faces or personal data: pictures and captions may show them."]
        sentences += [] if manifest.notes.get("excluded") else ["No test set was kept out: the set may hold images of public benchmarks."]
    if "clip_score" in filters:
        sentences.append("A model scored the pairs (clip_score): what it does not know, it scores low, and such samples are rarer here.")
    if any(s.get("template") for s in facts.recipe.get("sources") or []):
        sentences.append("Some captions are templates filled with class names, and were not written by a person for that image.")
    sentences += _overlap(facts)
    if unknown := sum(n or 0 for _, licence, n in facts.licences() if not licence):
        sentences.append(f"No licence is stated for {unknown:,} of {manifest.samples:,} samples.")
    if bad := manifest.bad_files:
        sentences.append(f"{len(bad):,} input files were torn or unreadable; only their whole samples count.")
    return sentences


def _cleaning(clean: Any) -> str:
    if not clean:
        return "Captions stand as the sources have them."
    extra = [f"{k} {v}" for k, v in clean.items() if v not in ("", "keep")] if isinstance(clean, dict) else []
    more = f" ({', '.join(extra)})" if extra else ""
    return f"Captions were repaired (wrong encodings, HTML) and put on one line{more}; their words were not changed otherwise."


def _images(image: Any) -> str:
    if not isinstance(image, dict) or not image.get("size"):
        return "Image bytes are the sources' own where they are plain JPEGs; other formats were encoded again as JPEG."
    return f"Images were resized to {image['size']} pixels ({image.get('mode')}), JPEG quality {image.get('quality')}."


def _filter(name: str, options: dict[str, Any]) -> str:
    options_text = ", ".join(f"{k} {_value(v)}" for k, v in options.items())
    meaning = why(name)
    return f"Filter {name}{f' ({options_text})' if options_text else ''}{f': {meaning}' if meaning else '.'}"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _duplicates(dedup: dict[str, Any]) -> list[str]:
    near, semantic = dedup.get("near"), dedup.get("semantic")
    kinds = ["equal bytes"] if dedup.get("exact") else []
    kinds += [f"pHashes within {near['radius']} of 64 bits ({near['hash']})"] if near else []
    kinds += ["equal captions"] if dedup.get("captions") else []
    kinds += [f"embeddings within {semantic['epsilon']} in cosine distance"] if semantic else []
    if not kinds:
        return ["Duplicates were not looked for."]
    where = "across all sources" if dedup.get("scope") == "all" else "within each source"
    kept = PREFERRED.get(str(dedup.get("prefer")), str(dedup.get("prefer")))
    return [f"Duplicates were looked for {where} by {', '.join(kinds)}; of several copies, {kept} stayed."]


def _not_online(facts: Facts) -> list[str]:
    inputs = sum(s.get("inputs", 0) for s in facts.manifest.sources.values())
    lost = sum(n for _, reason, n, _ in facts.drops() if reason in NO_IMAGE)
    if not lost:
        return []
    return [f"{lost:,} of {inputs:,} inputs ({lost / inputs:.1%}) gave no image. Those that did are no random part of the sources."]


def _language(filters: dict[str, dict[str, Any]]) -> str:
    if "language" not in filters:
        return "Captions were not chosen by language."
    allowed = ", ".join(filters["language"].get("allowed") or [])
    unsure = "" if filters["language"].get("unsure") == "drop" else "; captions too short to tell stayed"
    return f"Captions in other languages than {allowed} were dropped, as a small model judges them{unsure}."


def _safety(filters: dict[str, dict[str, Any]]) -> str:
    words = "Profanity was found by a list of words, which misses what is said without them" if "profanity" in filters else ""
    lists = "pictures and URLs on block lists were dropped" if "blocklist" in filters else ""
    looked = "no step judged what pictures show: some may be offensive or unsafe"
    sentence = "; ".join(part for part in (words or "Captions were not searched for profanity", lists, looked) if part)
    return sentence + "."


def _overlap(facts: Facts) -> list[str]:
    """Say what sources share, where a copy may stand in both of them."""
    notes = facts.manifest.notes
    pairs = (notes.get("overlap") or {}) if notes.get("dedup_scope") != "all" else {}
    sentences = []
    for pair, shared in pairs.items():
        kinds = {"by their bytes": shared.get("exact", 0), "by pairs of near-equal pHashes": shared.get("near", 0)}
        if counts := ", ".join(f"{n:,} {kind}" for kind, n in kinds.items() if n):
            sentences.append(f"Images that the inputs of {pair} share: {counts}. Copies may stand in both.")
    return sentences
