"""`curate why`: where did my sample go? By uid or its beginning, source id, URL, path or file name, from the ledger.

Beside each sample stand all copies of its picture, with their distance and what became of them; `--pictures PAGE` shows them.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from curate.decide.drop import ITSELF
from curate.listing import connect, sql_list
from shards import which
from shards.core import fs
from shards.core.config import option
from shards.core.console import cut, emit, inflected, say, visible
from shards.core.errors import UsageError
from shards.kin import beside
from shards.manifest import NAME, Manifest, read_manifest
from shards.sample import uid_of
from shards.schema import REASONS

UID = re.compile(r"[0-9a-f]{32}")
COPIES = 20  # of one picture, told in words; all stand in the JSON
MATCHES = 50  # samples of one name that are told


@dataclasses.dataclass(frozen=True)
class WhyConfig:
    """Say what a build did with samples, and with the copies of their pictures.

    Examples: curate why OUT 3f9a2c, curate why OUT photos/cat.jpg, curate why OUT https://example.org/1.jpg --pictures why.html
    """

    build: str = option(help="a finished build's folder", positional=True, metavar="OUT")
    samples: tuple[str, ...] = option(
        help=f"uids or {which.LEAST} and more of their first digits, source ids, URLs, paths, file names", positional=True, metavar="SAMPLE"
    )
    pictures: str = option("", "write a page that shows the samples and all copies of their pictures", metavar="PAGE.html")
    work: str = option("", "the build's work folder, which knows dropped pictures (default: OUT.work)", metavar="DIR")
    json: bool = option(False, "print JSON")


def why(config: WhyConfig) -> int:
    """Print a paragraph per matching ledger row; exit 1 if one of the names matches nothing."""
    from curate.report.config import check_page

    build = config.build.rstrip("/")
    files = [fs.join(build, "ledger", name) for name in fs.names(fs.join(build, "ledger")) if name.endswith(".parquet")]
    if not files:
        raise _no_ledger(build, config)
    if config.pictures:
        check_page(config.pictures)
    manifest = read_manifest(build, removed=True)
    con = connect("")
    missing: list[str] = []
    answers: list[dict[str, Any]] = []
    for name, uids in _uids(manifest, config.samples).items():
        rows = _rows(con, files, "uid", uids[:MATCHES])
        missing += [] if rows else [name]
        answers += rows
        if len(uids) > MATCHES:
            say(f"{name!r} fits {len(uids):,} samples, of which {MATCHES} are told")
    _add_copies(con, files, answers)
    inputs = _inputs(build)
    con.close()
    emit(answers if config.json else "\n".join(paragraph(row, inputs.get(row["source"], "")) for row in answers))
    if config.pictures and answers:
        from curate.report.copies import write_page

        write_page(config.pictures, manifest, answers, config.work.rstrip("/") or build + ".work")
        say(f"{config.pictures}: the pictures")
    for name in missing:
        say(f"{name!r} is in no row of the ledger")
    return 1 if missing else 0


def _no_ledger(build: str, config: WhyConfig) -> UsageError:
    """Return the error for a folder without a ledger; of a subset, it names the build that has one."""
    problem, allowed = f"no ledger in {config.build!r}", "a finished build's folder"
    if not fs.exists(fs.join(build, NAME)):
        return UsageError(problem, allowed)
    manifest = read_manifest(build, removed=True)
    homes = {manifest.folder_of(entry) for entry in manifest.shards if not entry.own}
    parents = {str(parent.get("manifest")) for parent in manifest.parents}
    homes |= {other.folder for other in beside(build) if other.digest in parents}
    builds = sorted({os.path.normpath(home) for home in homes if fs.exists(fs.join(home, "ledger"))})
    command = shlex.join(["curate", "why", *builds[:1], *config.samples])
    return UsageError(f"{problem}: a set made of others", allowed, command if builds else "the build that it was made of has one")


def _inputs(build: str) -> dict[str, str]:
    """Return the base name of what each source was read from, by the build's recipe: for inputs that are called `.`."""
    import yaml

    path = fs.join(build, "recipe.yaml")
    recipe = yaml.safe_load(fs.read_text(path)) if fs.exists(path) else {}
    inputs = {str(spec.get("name") or spec["reader"]): str(spec["input"]) for spec in recipe.get("sources", [])}
    return {name: input.rstrip("/").rpartition("/")[2] for name, input in inputs.items()}


def _uids(manifest: Manifest, names: tuple[str, ...]) -> dict[str, list[str]]:
    """Return the uids that each name may mean. An id that the ledger does not tell any more still gives its uid."""
    sources = list(manifest.sources)
    matches_of = which.find(manifest, names)
    return {
        name: [match.uid for match in matches_of[name]] or [uid_of(source, name) for source in sources] for name in dict.fromkeys(names)
    }


def _rows(con: Any, ledger: list[str], column: str, values: list[str]) -> list[dict[str, Any]]:
    """Return the ledger's rows of which a column has one of the values, by uid."""
    query = f"SELECT * FROM read_parquet({sql_list(ledger)}) WHERE {column} IN (SELECT unnest($1)) ORDER BY uid, source, input, row"
    return con.sql(query, params=[values]).to_arrow_table().to_pylist() if values else []


def _add_copies(con: Any, ledger: list[str], rows: list[dict[str, Any]]) -> None:
    """Give each row its `copies`: the other samples of its picture, the one that stays first."""
    leaders = sorted({row["duplicate_of"] or row["uid"] for row in rows})
    groups: dict[str, list[dict[str, Any]]] = {leader: [] for leader in leaders}
    for other in _rows(con, ledger, "uid", leaders) + _rows(con, ledger, "duplicate_of", leaders):
        leader = other["duplicate_of"] or other["uid"]
        if other not in groups[leader]:
            groups[leader].append(other)
    for row in rows:
        group = groups[row["duplicate_of"] or row["uid"]]
        row["copies"] = [dict(other) for other in group if other["uid"] != row["uid"]]
    for row in rows:
        for other in row["copies"]:
            other.pop("copies", None)


def paragraph(row: dict[str, Any], input: str = "") -> str:
    """Return one ledger row in words, with the copies of its picture; `input` is what its source was read from."""
    copies = row.get("copies", [])
    if not copies:
        return sentence(row, input)
    lines = [sentence(row, input), inflected(len(copies), f"  {len(copies):,} more [sample has|samples have] this picture:")]
    names = {other["uid"]: name_of(other) for other in [row, *copies]}
    lines += [f"    {other['uid']}  {name_of(other)}  {outcome(other, names)}" for other in copies[:COPIES]]
    if len(copies) > COPIES:
        lines.append(f"    and {len(copies) - COPIES:,} more (--json tells all)")
    return "\n".join(lines)


def name_of(row: dict[str, Any]) -> str:
    """Return the first line of an id, which for many sources is a URL, cut to 60 columns."""
    return cut(visible(row["source_id"].partition("\n")[0]), 60)


def sentence(row: dict[str, Any], input: str = "") -> str:
    """Return one ledger row in words; `input` is what its source was read from."""
    place = input if row["input"] == "." and input else row["input"]
    where = f"{row['uid']}  {visible(row['source'])} {row['source_id']!r} ({visible(place)}, record {row['row']})"
    names = {other["uid"]: name_of(other) for other in row.get("copies", [])}
    if row["decision"] == "dropped":
        return f"{where}\n  {outcome(row, names)}: {REASONS.get(row['reason'], 'refused by this filter')}"
    return f"{where}\n  {outcome(row)}"


def outcome(row: dict[str, Any], names: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return what became of a sample, in a few words; other samples are called by their `names`, where there is one for the uid."""
    if row["decision"] == "kept":
        return f"kept: shard {row['shard']}, rank {row['rank']:,}"
    if row["decision"] == "spare":
        return f"spare: survived at rank {row['rank']:,}, beyond the size of the build"
    if row["decision"] == "holdout":
        return "held out"
    detail = visible(row["detail"])
    if ITSELF in detail:  # it is a copy of one that went, too, and not of the one that stays
        detail = UID.sub(lambda match: names.get(match[0], match[0]), detail)
        return f"dropped: {row['reason']} ({detail}); {row['duplicate_of']} stays"
    of = f" of {row['duplicate_of']}" if row["duplicate_of"] else ""
    return f"dropped: {row['reason']}{of}" + (f" ({detail})" if detail else "")
