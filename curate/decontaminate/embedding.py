"""Embeddings of test sets and of the copies planted among them, by the recipe's model: an option beside the hashes."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from curate.decontaminate import plant
from curate.decontaminate.plant import KINDS
from curate.decontaminate.sets import ExcludedSet, Pointer
from curate.images import ImagePolicy, open_image
from curate.recipe import Embed
from shards.core import fs
from shards.core.config import digest
from shards.core.console import Progress
from shards.core.engine import Done, map_unordered
from shards.core.errors import RunError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    F16 = NDArray[np.float16]

BATCH = 256


@dataclasses.dataclass(frozen=True)
class EmbedTask:
    """Some images of a test set for one model; of the planted ones copies, too."""

    pointers: tuple[tuple[int, Pointer], ...]
    planted: frozenset[int]
    policy: ImagePolicy
    model: Embed


def embed_sets(spec: Embed, sets: list[ExcludedSet], policy: ImagePolicy, work: str, workers: int, engine: str) -> list[ExcludedSet]:
    """Return the sets with the files of their embeddings; what the work folder knows already is not embedded again.

    Raises:
        UsageError: no such model or weights.
        RunError: a worker died.
    """
    return [_embed_set(spec, s, policy, work, workers, engine) for s in sets]


def _embed_set(spec: Embed, s: ExcludedSet, policy: ImagePolicy, work: str, workers: int, engine: str) -> ExcludedSet:
    import numpy as np

    from curate.embed import model_digest

    stem = fs.join(work, "excluded", digest([s.digest, model_digest(spec), plant.VERSION, plant.KINDS, policy]))
    done = dataclasses.replace(s, vectors=stem + ".images.npy", copies=stem + ".copies.npy")
    if fs.exists(done.vectors) and fs.exists(done.copies):
        return done
    good = [(i, pointer) for i, pointer in enumerate(s.pointers) if not s.status[i]]
    chosen = frozenset(s.chosen)
    tasks = [EmbedTask(tuple(good[i : i + BATCH]), chosen, policy, spec) for i in range(0, len(good), BATCH)]
    images: F16 | None = None
    copies: dict[int, F16] = {}
    with Progress(f"embed {s.name}", len(good), "images") as progress:
        for outcome in map_unordered(
            embed_batch, tasks, workers=1 if spec.device != "cpu" else max(1, min(workers, len(tasks))), engine=engine
        ):
            if not isinstance(outcome, Done):
                raise RunError(f"{s.name}: {outcome.reason} while its images were embedded", advice="run it again")
            found, planted = outcome.result
            images = np.zeros((len(s.names), found.shape[1]), np.float16) if images is None else images
            images[[i for i, _ in outcome.spec.pointers]] = found
            copies |= planted
            progress.add(len(found))
    images = np.zeros((len(s.names), 1), np.float16) if images is None else images
    stacked = np.concatenate([copies[i] for i in s.chosen]) if copies else images[:0]
    for path, array in ((done.vectors, images), (done.copies, stacked)):
        with fs.atomic_write(path) as file:
            np.lib.format.write_array(file, array, allow_pickle=False)
    return done


def embed_batch(task: EmbedTask) -> tuple[F16, dict[int, F16]]:
    """Return the embeddings of a task's images, and by image those of its planted copies, one of each kind; runs in a worker."""
    import numpy as np

    from curate.embed import load_model

    model = load_model(task.model)
    images, copies = [], {}
    for start in range(0, len(task.pointers), task.model.batch):
        batch = task.pointers[start : start + task.model.batch]
        stored = [_stored(fs.read_range(*pointer), task.policy) for _, pointer in batch]
        images.append(model.images(stored).astype(np.float16))
        for (i, _), content in zip(batch, stored, strict=True):
            if i in task.planted:
                copies[i] = model.images([_stored(copy, task.policy) for copy in plant.planted(content)]).astype(np.float16)
                assert len(copies[i]) == len(KINDS)
    return np.concatenate(images), copies


def _stored(content: bytes, policy: ImagePolicy) -> bytes:
    """Return the image as a build would store it."""
    return open_image(content, policy).encoded or content
