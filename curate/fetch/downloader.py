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

from curate.fetch import state
from curate.fetch.rows import account
from curate.fetch.task import Fetched, Task
from curate.fetch.web import Limits, download
from shards.core import fs
from shards.core.errors import RunError

EXTRA_COLUMNS = ("source_id", "url_index")


class SafeDownloader(Downloader):  # type: ignore[misc]
    """img2dataset's Downloader, whose `download_image` is `curate.fetch.web.download`; patched where it runs."""

    def __init__(self, limits: Limits, **options: Any) -> None:
        super().__init__(**options)
        self.limits = limits

    def download_shard(self, row: tuple[int, str]) -> None:
        """Download one shard; raises what img2dataset raises."""
        img2dataset.downloader.download_image = functools.partial(_download_image, self.limits)
        super().download_shard(row)


def _download_image(limits: Limits, row: tuple[int, str], *_: object) -> tuple[int, io.BytesIO | None, str | None]:
    """Answer in the form of img2dataset's download_image, whose further arguments have no meaning here."""
    key, url = row
    try:
        content, why_not = download(url, limits)
    except Exception as error:  # noqa: BLE001  # one odd URL must not cost the shard
        content, why_not = None, f"{type(error).__name__}: {error}"[:300]
    return (key, None, why_not) if content is None else (key, io.BytesIO(content), None)


def download_shard(task: Task) -> Fetched:
    """Download a shard beside the pool, account for its rows, and rename it into the pool, its stats file last."""
    rows = state.input_path(task.pool, task.shard)
    temporary = state.temporary(task.pool, f"{task.shard}-{os.getpid()}")
    try:
        fs.make_dirs(temporary)
        reader = _reader(rows, temporary, task)
        for shard in reader:
            _downloader(task, temporary, reader.column_list).download_shard(shard)
        table = account(task.shard, rows, temporary, task.samples_per_shard)
        state.commit(task.pool, task.shard, temporary, table)
    except OSError as error:
        raise RunError(f"shard {task.shard} cannot be written: {error}", advice="make room, then run the same command again") from error
    finally:
        fs.remove(temporary)
    return Fetched(task.shard, table.num_rows, table["status"].to_pylist().count("success"))


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


def _downloader(task: Task, folder: str, columns: list[str]) -> SafeDownloader:
    resizer = Resizer(
        image_size=task.image_size,
        resize_mode=task.resize_mode,
        resize_only_if_bigger=task.resize_only_if_bigger,
        disable_all_reencoding=task.image_size is None,
    )
    return SafeDownloader(
        limits=task.limits,
        sample_writer_class=WebDatasetSampleWriter,
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
