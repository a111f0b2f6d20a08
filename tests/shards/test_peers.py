"""Peers read our shards unchanged: webdataset, open_clip's loader and trainer, Hugging Face datasets, DALI.

Each runs in a process of its own, as its users run it; several warn, leak threads or change global state.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shards import cli
from shards.inspect import open_clip_command
from shards.manifest import read_manifest
from shards.reader import read_samples

pytestmark = pytest.mark.slow


def _run(code: str, *arguments: str, cwd: Path | None = None) -> Any:
    """Run a script in a fresh process and return what its last line of stdout says as JSON."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, cwd=cwd, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def _ours(folder: str) -> list[tuple[str, str]]:
    return [(s.key, s.members["txt"].decode()) for s in read_samples(read_manifest(folder))]


def _tars(folder: str) -> list[str]:
    manifest = read_manifest(folder)
    return [manifest.path_of(e) for e in manifest.shards]


WEBDATASET = """
import json, sys
import webdataset as wds
data = wds.WebDataset(sys.argv[1:], shardshuffle=False).decode("pilrgb").to_tuple("__key__", "jpg", "txt", "cls")
print(json.dumps([(key, image.size, text, label) for key, image, text, label in data]))
"""


def test_webdataset(make_shards):
    folder = make_shards(20, classes=True)
    rows = _run(WEBDATASET, *_tars(folder))
    samples = list(read_samples(read_manifest(folder), ["cls", "txt"]))
    assert rows == [[s.key, [56, 48], s.members["txt"].decode(), int(s.members["cls"])] for s in samples]


def test_webdataset_reads_a_materialized_window(make_shards, tmp_path):
    folder = make_shards(20, classes=True)
    assert cli.main(["subset", folder, "--window", "5:19", "--output", str(tmp_path / "s"), "--materialize"]) == 0
    assert [row[0] for row in _run(WEBDATASET, *_tars(str(tmp_path / "s")))] == [k for k, _ in _ours(folder)][5:19]


def test_webdataset_reads_a_scattered_set_that_was_merged_and_written_out(make_shards, tmp_path):
    one, two = make_shards(20, "one", classes=True), make_shards(15, "two", classes=True, seed=1, source="other")
    flags = ["--materialize", "--engine", "inline"]
    assert cli.main(["subset", one, "--where", "class IN (0, 2)", "--output", str(tmp_path / "s"), *flags]) == 0
    assert cli.main(["merge", str(tmp_path / "s"), two, "--output", str(tmp_path / "m"), *flags]) == 0
    chosen = [s.key for s in read_samples(read_manifest(one), [], ["class"]) if s.row["class"] in (0, 2)]
    assert [row[0] for row in _run(WEBDATASET, *_tars(str(tmp_path / "m")))] == chosen + [k for k, _ in _ours(two)]


def test_webdataset_reads_what_a_take_down_left(make_shards, tmp_path):
    folder = make_shards(20, classes=True)
    keys = [k for k, _ in _ours(folder)]
    (tmp_path / "uids.txt").write_text("\n".join([keys[2], *keys[8:16]]))
    assert cli.main(["remove", folder, "--uids", str(tmp_path / "uids.txt")]) == 0
    assert cli.main(["compact", folder, "--engine", "inline"]) == 0
    assert [row[0] for row in _run(WEBDATASET, *_tars(folder))] == [k for i, k in enumerate(keys) if i != 2 and not 8 <= i < 16]


HUGGING_FACE = """
import json, sys
from datasets import load_dataset
data = load_dataset("webdataset", data_files=sys.argv[2:], split="train", cache_dir=sys.argv[1])
print(json.dumps([(row["__key__"], row["jpg"].size, row["txt"], row["cls"]) for row in data]))
"""


def test_hugging_face_datasets(make_shards, tmp_path):
    folder = make_shards(20, classes=True)
    rows = _run(HUGGING_FACE, str(tmp_path / "cache"), *_tars(folder))
    assert [(key, text) for key, _, text, _ in rows] == _ours(folder)
    assert {tuple(size) for _, size, _, _ in rows} == {(56, 48)}


DALI = """
import json, sys
import numpy as np
from nvidia.dali import fn, pipeline_def
paths = json.loads(sys.argv[1])
@pipeline_def(batch_size=4, num_threads=2, device_id=None)
def pipe():
    jpg, txt = fn.readers.webdataset(paths=[p for p, _ in paths], index_paths=[i for _, i in paths], ext=["jpg", "txt"], name="R")
    return fn.decoders.image(jpg, device="cpu"), txt
pipe = pipe()
pipe.build()
size = pipe.reader_meta("R")["epoch_size"]
rows = []
while len(rows) < size:
    images, texts = pipe.run()
    rows += [(list(np.asarray(i).shape), bytes(np.asarray(t)).decode()) for i, t in zip(images, texts)]
print(json.dumps(rows[:size]))
"""


@pytest.mark.parametrize("window", ["0:20", "5:19", "8:16", "3:6"])
def test_dali_with_our_indices_honours_windows(make_shards, tmp_path, window):
    folder, out = make_shards(20), str(tmp_path / "s")
    assert cli.main(["subset", folder, "--window", window, "--output", out]) == 0
    manifest = read_manifest(out)
    pairs = [(manifest.path_of(e), manifest.path_of(e, ".idx")) for e in manifest.shards]
    start, stop = map(int, window.split(":"))
    rows = _run(DALI, json.dumps(pairs))
    assert [text for _, text in rows] == [t for _, t in _ours(folder)][start:stop]
    assert all(shape == [48, 56, 3] for shape, _ in rows)


def test_dali_with_our_indices_honours_scattered_sets(make_shards, tmp_path):
    folder, out = make_shards(20), str(tmp_path / "s")
    assert cli.main(["subset", folder, "--where", "contains(caption, 'circle') OR contains(caption, 'cross')", "--output", out]) == 0
    manifest = read_manifest(out)
    pairs = [(manifest.path_of(e), manifest.path_of(e, ".idx")) for e in manifest.shards]
    texts = [text for _, text in _run(DALI, json.dumps(pairs))]
    assert texts == [t for _, t in _ours(folder) if "circle" in t or "cross" in t]
    assert 2 < len(texts) < 18


MODEL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}

OPEN_CLIP_LOADER = """
import json, sys
import open_clip
open_clip.add_model_config(sys.argv[1])
from open_clip_train.data import get_data
from open_clip_train.params import parse_args
args = parse_args(["--train-data", sys.argv[2], "--dataset-type", "webdataset", "--model", "tiny", "--batch-size", "4", "--workers", "0"])
args.world_size, args.rank, args.distributed, args.device = 1, 0, False, "cpu"
_, preprocess, _ = open_clip.create_model_and_transforms("tiny")
tokenizer = open_clip.get_tokenizer("tiny")
info = get_data(args, (preprocess, preprocess), epoch=0, tokenizer=tokenizer)["train"]
info.set_epoch(0)
texts, shapes = [], []
for images, tokens in info.dataloader:
    shapes.append(list(images.shape))
    texts += [open_clip.decode(t).split("<end_of_text>")[0].replace("<start_of_text>", "").strip() for t in tokens]
print(json.dumps([info.dataloader.num_samples, shapes, texts]))
"""


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    (tmp_path / "tiny.json").write_text(json.dumps(MODEL))
    return str(tmp_path / "tiny.json")


def test_open_clips_loader_learns_the_size_and_reads_every_caption(make_shards, tiny):
    """Its tokens, decoded again, are our captions (its decoder sets spaces around commas); sizes.json says how many."""
    folder = make_shards(20)
    count, shapes, texts = _run(OPEN_CLIP_LOADER, tiny, folder + "/{00000..00002}.tar")
    assert count == 20
    assert shapes == [[4, 3, 32, 32]] * 5
    plain = sorted("".join(t.split()) for t in texts)
    assert plain == sorted("".join(t.split()) for _, t in _ours(folder))


OPEN_CLIP_TRAINER = """
import json, sys
import open_clip
open_clip.add_model_config(sys.argv[1])
from open_clip_train.main import main
main(sys.argv[2:])
print(json.dumps("done"))
"""


def test_one_epoch_of_open_clips_trainer_by_the_command_that_inspect_prints(make_shards, tiny, tmp_path):
    import shlex

    words = shlex.split(open_clip_command(read_manifest(make_shards(24))))[3:]
    settings = {"--model": "tiny", "--batch-size": "4", "--workers": "1"}
    words = [settings.get(words[i - 1], word) if i else word for i, word in enumerate(words)]
    more = ["--epochs", "1", "--device", "cpu", "--precision", "fp32", "--logs", str(tmp_path / "logs"), "--name", "run", "--warmup", "1"]
    assert _run(OPEN_CLIP_TRAINER, tiny, *words, *more, cwd=tmp_path) == "done"
    log = (tmp_path / "logs" / "run" / "out.log").read_text()
    assert "Train Epoch: 0 [24/24 (100%)]" in log
    assert (tmp_path / "logs" / "run" / "checkpoints" / "epoch_1.pt").is_file()
