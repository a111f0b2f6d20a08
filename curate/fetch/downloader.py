"""img2dataset's downloader, reader, writer and resizer, with a safe download in place of its own.

Imported by worker processes only. Its multiprocessing pool is not used: a killed worker makes that hang for ever,
and it takes its whole input at once, so that a fetch could not stop when it has enough.
"""

from __future__ import annotations

import functools
import io
import os
from typing import Any

import img2dataset.downloader
from img2dataset.downloader import Downloader
from img2dataset.reader import Reader
from img2dataset.resizer import Resizer
from img2dataset.writer import WebDatasetSampleWriter

from curate.fetch import kept, state
from curate.fetch.hosts import Hosts
from curate.fetch.kept import KeptImage, KeptSample
from curate.fetch.pictures import UNUSABLE, as_pixels, decoded, refusal
from curate.fetch.rows import account, first_key
from curate.fetch.secrecy import Barred, Lists, hide, is_secret, read_lists
from curate.fetch.task import Fetched, Task
from curate.fetch.web import download
from shards.core import fs
from shards.core.errors import RunError
from shards.upright import UndecodableError

EXTRA_COLUMNS = ("source_id", "url_index")


class SafeDownloader(Downloader):  # type: ignore[misc]
    """img2dataset's Downloader, whose `download_image` is an `Asker`; patched where it runs."""

    def __init__(self, asker: Asker, **options: Any) -> None:
        super().__init__(**options)
        self.asker = asker

    def download_shard(self, row: tuple[int, str]) -> None:
        """Download one shard; raises what img2dataset raises."""
        img2dataset.downloader.download_image = self.asker
        super().download_shard(row)


class Asker:
    """Answers for the URLs of one shard in the place of img2dataset's download_image, in several threads."""

    def __init__(self, task: Task, barred: Barred, kept_before: dict[int, KeptSample], secrets: dict[int, str]) -> None:
        self.task, self.barred, self.found, self.secrets = task, barred, kept_before, secrets
        self.hosts = _hosts(task.limits.per_host, state.hosts_path(task.pool))
        self.facts: dict[int, dict[str, Any]] = {}  # of the samples that an interrupted run had fetched

    def __call__(self, row: tuple[int, str], *_: object, **__: object) -> tuple[int, io.BytesIO | None, str | None]:
        """Return a row's place, and its bytes or why there are none; further arguments have no meaning here."""
        place, url = row
        if place in self.secrets:
            return place, None, self.secrets[place]
        if place in self.found and (image := self.found[place].read()):
            self.facts[place] = image.facts
            return place, image, None
        try:
            content, why_not = download(url, self.task.limits, self.hosts, self.barred.hops)
            if content is not None:
                why_not = refusal(content, whole=self.task.prove)
        except Exception as error:  # noqa: BLE001  # one odd URL must not cost the shard
            content, why_not = None, f"{type(error).__name__}: {error}"[:300]
        return (place, None, why_not) if content is None or why_not else (place, io.BytesIO(content), None)


@functools.cache
def _hosts(per_host: int, path: str) -> Hosts:
    return Hosts(per_host, path)


@functools.cache
def _barred(lists: Lists) -> Barred:
    return read_lists(lists)  # a list of hosts may hold millions: once for each worker


class UprightResizer(Resizer):  # type: ignore[misc]
    """img2dataset's Resizer behind the house's one decoder: it meets upright sRGB pixels, whatever the file was."""

    def __call__(self, img_stream: io.BytesIO, blurring_bbox_list: object = None) -> tuple[Any, ...]:
        """Return (bytes, width, height, original width, original height, error); without resizing, bytes or error alone."""
        content = img_stream.getvalue()
        if isinstance(img_stream, KeptImage):
            sizes = [img_stream.facts[name] for name in ("width", "height", "original_width", "original_height")]
            return (content, *sizes, None)
        if self.disable_all_reencoding:
            return content, None, None, None, None, None
        try:
            pixels = as_pixels(decoded(content))
        except UndecodableError as error:
            return None, None, None, None, None, f"{UNUSABLE}{error}"
        return tuple(super().__call__(pixels))


class Writer(WebDatasetSampleWriter):  # type: ignore[misc]
    """img2dataset's writer of tars, which leaves nothing of what must stay secret, and the first run's digest of what was kept."""

    def __init__(self, facts: dict[int, dict[str, Any]], first: int, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.facts, self.first = facts, first

    def write(self, img_str: bytes | None, key: str, caption: str | None, meta: dict[str, Any]) -> None:
        """Write one sample, or the row of one without a picture."""
        if is_secret(meta["error_message"] or ""):
            hide(meta)
            caption = ""
        if known := self.facts.get(int(key) - self.first):
            meta["sha256"] = known["sha256"]  # img2dataset's is of the resized bytes, which are all that was kept
        super().write(img_str, key, caption, meta)


def download_shard(task: Task) -> Fetched:
    """Download a shard beside the pool, account for its rows, and rename it into the pool, its stats file last.

    What an interrupt leaves unfinished stays where it is: the next run takes it over, as the next worker does from one that died.
    """
    import pyarrow.parquet as pq

    temporary = state.temporary(task.pool, f"{task.shard}-{os.getpid()}")
    first = first_key(task.shard, task.samples_per_shard)
    try:
        kept.adopt(task.pool, state.temporary(task.pool), f"{task.shard}-")
        fs.remove(temporary)
        fs.make_dirs(temporary)
        rows = pq.read_table(state.input_path(task.pool, task.shard)).to_pylist()
        barred = _barred(task.lists)
        secrets = {place: why for place, row in enumerate(rows) if (why := barred.why_row(row, task.source_name))}
        asker = Asker(task, barred, kept.kept_samples(task.pool, task.shard, first), secrets)
        reader = _reader(_without(rows, secrets, temporary), temporary, task)
        for shard in reader:
            _downloader(task, temporary, reader.column_list, asker, first).download_shard(shard)
        table = account(task.shard, rows, temporary, task.samples_per_shard, task.source_name)
        state.commit(task.pool, task.shard, temporary, table)
        kept.forget(task.pool, task.shard)
    except OSError as error:
        fs.remove(temporary)
        raise RunError(f"shard {task.shard} cannot be written: {error}", advice="make room, then run the same command again") from error
    fs.remove(temporary)
    return Fetched(task.shard, table.num_rows, state.usable(table), len(asker.facts))


def _without(rows: list[dict[str, Any]], secrets: dict[int, str], folder: str) -> str:
    """Write the rows for img2dataset's reader, those that are not asked for empty, and return the file's path."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    copies = [dict(row) for row in rows]
    for place in secrets:
        hide(copies[place])
    path = fs.join(folder, "rows.parquet")
    pq.write_table(pa.Table.from_pylist(copies, state.input_schema()), path)
    return path


def _reader(rows: str, temporary: str, task: Task) -> Reader:
    return Reader(
        url_list=rows,
        input_format="parquet",
        url_col="url",
        caption_col="caption",
        verify_hash_col=None,
        verify_hash_type=None,
        save_additional_columns=list(EXTRA_COLUMNS),
        number_sample_per_shard=task.samples_per_shard,
        done_shards=set(),
        tmp_path=temporary,
        start_shard_id=task.shard,
    )


def _downloader(task: Task, folder: str, columns: list[str], asker: Asker, first: int) -> SafeDownloader:
    resizer = UprightResizer(
        image_size=task.image_size,
        resize_mode=task.resize_mode,
        resize_only_if_bigger=task.resize_only_if_bigger,
        disable_all_reencoding=task.image_size is None,
    )
    return SafeDownloader(
        asker=asker,
        sample_writer_class=functools.partial(Writer, asker.facts, first),
        resizer=resizer,
        thread_count=task.threads,
        save_caption=True,
        extract_exif=False,
        output_folder=folder,
        column_list=columns,
        timeout=task.limits.timeout,
        number_sample_per_shard=task.samples_per_shard,
        oom_shard_count=5,
        compute_hash="sha256",
        verify_hash_type=None,
        encode_format="jpg",
        retries=0,
        user_agent_token=None,
        disallowed_header_directives=None,  # honoured by our own download
    )
