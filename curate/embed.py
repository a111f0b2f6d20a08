"""An open_clip model reads every measured image and its caption: for scores, and for duplicates by meaning.

One task is one measured part. It writes the part once more, with the score of each sample in `clip_score.score`, and
beside it two arrays of unit-length embeddings (float16, one row per row of the part, zero where there is no image).
All of it is keyed by the part's and the model's content. torch is imported here and nowhere else in curate.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import TYPE_CHECKING, Any

from curate.hidden import DIGEST as HIDDEN_KEY
from curate.measure import DIGEST_KEY, Part
from curate.recipe import Embed
from curate.table import POINTER, rows_digest
from shards.core import fs
from shards.core.config import digest
from shards.core.console import Progress, hushed
from shards.core.engine import Done, map_unordered
from shards.core.errors import RunError, UsageError
from shards.upright import open_image, upright_rgb

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    F16 = NDArray[np.float16]

VERSION = 2
SCORE = "clip_score.score"


@dataclasses.dataclass(frozen=True)
class Embedded:
    """A part with its embeddings: the measured part (scored), and the two arrays' files."""

    part: Part
    images: str
    texts: str


@dataclasses.dataclass(frozen=True)
class EmbedTask:
    """One measured part to be read by one model into a folder."""

    part: Part
    embed: Embed
    model_digest: str
    folder: str


def embed(spec: Embed, parts: list[Part], work: str, workers: int, engine: str) -> list[Embedded]:
    """Embed all parts; returns them in the order given. What is on disk already is not redone.

    Raises:
        UsageError: no such model or weights.
        RunError: a worker died.
    """
    folder = fs.join(work, "embedded")
    fs.make_dirs(folder)
    version = model_digest(spec)
    tasks = [EmbedTask(part, spec, version, folder) for part in parts]
    embedded_parts: dict[str, Embedded] = {}
    with Progress("embed", sum(p.rows for p in parts)) as progress:
        for outcome in map_unordered(embed_part, tasks, workers=1 if spec.device != "cpu" else min(workers, len(tasks)), engine=engine):
            if not isinstance(outcome, Done):
                raise RunError(
                    f"{outcome.spec.part.path}: {outcome.reason} while its images were embedded", advice="run it again: it resumes"
                )
            embedded_parts[outcome.spec.part.path] = outcome.result
            progress.add(outcome.result.part.rows)
    return [embedded_parts[part.path] for part in parts]


def model_digest(spec: Embed) -> str:
    """Return the digest of a model: its architecture, and its weights by content."""
    return digest([VERSION, spec.model, fs.sha256(spec.checkpoint) if fs.exists(spec.checkpoint) else spec.checkpoint])


def embed_part(task: EmbedTask) -> Embedded:
    """Score and embed one part unless that is done; runs in a worker."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    stem = fs.join(task.folder, digest([task.part.digest, task.part.order, task.model_digest]))
    paths = stem + ".parquet", stem + ".images.npy", stem + ".texts.npy"
    if fs.exists(paths[0]):
        with fs.open_read(paths[0]) as file:
            noted = pq.read_schema(file).metadata or {}
        with fs.open_read(task.part.path) as file:
            measured = pq.read_schema(file).metadata or {}
        if noted.get(HIDDEN_KEY) == measured.get(HIDDEN_KEY):  # else rows were emptied here, and measured anew there
            return Embedded(dataclasses.replace(task.part, path=paths[0], digest=noted[DIGEST_KEY].decode()), paths[1], paths[2])
    with fs.open_read(task.part.path) as file:
        rows = pq.read_table(file)
    images, texts, scores = _read(rows, load_model(task.embed), task.embed.batch)
    for path, array in zip(paths[1:], (images, texts), strict=True):
        with fs.atomic_write(path) as file:
            np.lib.format.write_array(file, array, allow_pickle=False)
    known = [None if np.isnan(s) else float(s) for s in scores]
    column = pa.array(known, pa.float64())
    place = rows.schema.get_field_index(SCORE)
    scored = rows.set_column(place, SCORE, column) if place >= 0 else rows
    with_score = scored if place >= 0 else rows.append_column(SCORE, column)
    version = rows_digest(with_score.drop_columns([name for name, _ in POINTER]), beside=task.model_digest)
    with fs.atomic_write(paths[0]) as file:
        pq.write_table(scored.replace_schema_metadata({DIGEST_KEY: version.encode()}), file, compression="zstd")
    return Embedded(dataclasses.replace(task.part, path=paths[0], digest=version), paths[1], paths[2])


def _read(rows: pa.Table, model: Model, batch: int) -> tuple[F16, F16, NDArray[np.float64]]:
    """Return the embeddings of images and captions, and the cosine of the two (NaN where there is no image)."""
    import numpy as np

    images, texts = (np.zeros((rows.num_rows, model.width), np.float16) for _ in range(2))
    scores = np.full(rows.num_rows, np.nan)
    good = [i for i, row in enumerate(rows.select(["status", "bytes"]).to_pylist()) if not row["status"] and row["bytes"]]
    columns = rows.select(["path", "offset", "size", "caption"])
    for start in range(0, len(good), batch):
        places = good[start : start + batch]
        chosen = columns.take(places).to_pylist()
        contents = [fs.read_range(row["path"], row["offset"], row["size"]) for row in chosen]
        seen, text_vectors = model.images(contents), model.texts([row["caption"] for row in chosen])
        images[places], texts[places] = seen, text_vectors
        scores[places] = np.round((seen.astype(np.float64) * text_vectors).sum(axis=1), 4)
    return images, texts, scores


@dataclasses.dataclass(frozen=True)
class Model:
    """A model on its device. Both functions return unit-length rows, float32."""

    network: Any
    transform: Any
    tokenize: Any
    device: str
    width: int

    def images(self, contents: list[bytes]) -> NDArray[np.float32]:
        """Return the embeddings of encoded images."""
        import torch

        pixels = torch.stack([self.transform(upright_rgb(open_image(content))) for content in contents])
        with torch.inference_mode():
            return self.network.encode_image(pixels.to(self.device), normalize=True).float().cpu().numpy()

    def texts(self, captions: list[str]) -> NDArray[np.float32]:
        """Return the embeddings of captions."""
        import torch

        with torch.inference_mode():
            return self.network.encode_text(self.tokenize(captions).to(self.device), normalize=True).float().cpu().numpy()


@cache
def load_model(spec: Embed) -> Model:
    """Load a model once a process.

    Raises:
        UsageError: no such architecture, or weights that are not its own.
    """
    import open_clip
    import torch

    name = spec.model
    if name.endswith(".json"):
        if not fs.exists(name):
            raise UsageError(f"embed.model: no file {name!r}", "the JSON of an open_clip architecture, or a name")
        open_clip.add_model_config(name)
        name = name.rpartition("/")[2].removesuffix(".json")
    if name not in open_clip.list_models():
        raise UsageError(f"embed.model: found {spec.model!r}", "a name of open_clip.list_models(), or a JSON file")
    torch.set_num_threads(1)  # workers are one to a core
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    with hushed():
        if not fs.exists(spec.checkpoint):
            network = _pretrained(open_clip, name, spec.checkpoint)
        else:
            weights = {} if spec.checkpoint.endswith(".safetensors") else torch.load(spec.checkpoint, map_location="cpu", weights_only=True)
            if {"state_dict", "config"} <= weights.keys():  # a checkpoint of `train clip`
                network = open_clip.create_model(name, force_image_size=weights["config"]["image_size"])
                _load(network, weights["state_dict"], spec)
                mean, std = tuple(weights["config"]["augment"]["mean"]), tuple(weights["config"]["augment"]["std"])
            else:
                network = _pretrained(open_clip, name, spec.checkpoint)
    network = network.to(spec.device).eval()
    transform = open_clip.image_transform(network.visual.image_size, is_train=False, mean=mean, std=std)
    tokenize = open_clip.get_tokenizer(name)
    width = network.encode_text(tokenize(["a"]).to(spec.device)).shape[1]
    return Model(network, transform, tokenize, spec.device, int(width))


def _pretrained(open_clip: Any, name: str, checkpoint: str) -> Any:
    try:
        return open_clip.create_model(name, pretrained=checkpoint)
    except (RuntimeError, FileNotFoundError) as error:
        raise _no_weights(name, checkpoint, error) from None


def _load(network: Any, state: dict[str, Any], spec: Embed) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise _no_weights(spec.model, spec.checkpoint, error) from None


def _no_weights(name: str, checkpoint: str, error: Exception) -> UsageError:
    why = str(error).splitlines()[0]
    return UsageError(
        f"embed.checkpoint: {checkpoint!r} gives no weights for {name}: {why}", "a file of its weights, or a tag of open_clip's"
    )
