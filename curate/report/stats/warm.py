"""Importing this loads what counting needs: the compiled loops, the vocabulary, the forms of the concepts.

The process that workers are forked off imports it (`shards.core.engine.prepare`), so that they hold all this once: 120 MB.
"""

import contextlib

import pyarrow as pa

from curate.report import clip_tokens, concepts, wordcount
from shards.core.errors import RunError

with contextlib.suppress(RunError):  # no vocabulary: the task that misses it says so
    concepts.mentions(wordcount.count(["a dog"]), concepts.default_lists())
    clip_tokens.clip_tokens(pa.array(["a dog"]))
