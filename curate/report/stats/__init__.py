"""Statistics that add: a table of exact counts for each shard; tables are merged by adding up equal rows.

A row is (source, kind, text, value, count, captions). What is counted stands in `text` or in `value`, by kind:

- `word`: a word; `captions` is how many captions hold it. `bigram`: two words that follow each other, a space between them.
- `concept`: a class of a downstream set, `SET<tab>CLASS`: its mentions, and the captions that have one (`curate.report.concepts`).
- `words`, `characters`, `clip_tokens` (without start and end): captions by length. All by exact value.
- `repetition`: captions of one word or more by the share of their words that stood in them before, rounded to 0.01.
- `readability`: captions by what kind of text they are (`curate.report.readability`).
- `caption`: captions that say the same, by a 52-bit hash of their words in order (of the text where it has no word). `text` is
  one of their spellings, where a shard has it twice; it is no key. Sorted by hash, so that a share of all is a prefix.
- `width`, `height`, `shorter_side`: images by pixels, exact. `aspect` (width / height), `bytes`: by value rounded to three digits,
  within 0.5% of the true one. `information`: gray levels rounded to 0.1 (`shards.phash`). `format`: by the format they came in, or
  `unreadable`.
- `samples`: how many there are.

A shard's table lies in stats/NNNNN.parquet beside it and names what it was counted from, the sidecar or a foreign tar: one that
is out of date is seen, and counted anew. So is a cut shard's, whose samples are not all in use.
"""

from curate.report.stats.counting import COUNTED, count_concepts, count_rows, spellings, version
from curate.report.stats.duplicates import duplicates, most_repeated
from curate.report.stats.files import ASIDE, is_current, parts, path_of, read_statistics, write_statistics
from curate.report.stats.sums import add, add_up, open_sums, sources_of, token_counts, totals
from curate.report.stats.table import merged, schema, three_digits

__all__ = [
    "ASIDE",
    "COUNTED",
    "add",
    "add_up",
    "count_concepts",
    "count_rows",
    "duplicates",
    "is_current",
    "merged",
    "most_repeated",
    "open_sums",
    "parts",
    "path_of",
    "read_statistics",
    "schema",
    "sources_of",
    "spellings",
    "three_digits",
    "token_counts",
    "totals",
    "version",
    "write_statistics",
]
