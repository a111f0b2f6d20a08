"""The whole loop on a few drawn samples: it learns, it resumes to the bit, it stops when it should."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from shards import cli as shards_cli
from shards.core import fs
from shards.core.errors import RunError, UsageError
from shards.manifest import read_manifest
from shards.reader import read_samples
from tests.train import runs
from tests.train.runs import lines, same_bits, state, tensors
from train import cli, distributed, loop, run
from train.config import TrainConfig
from train.data.augment.params import Augment
from train.data.batch import BadSample
from train.models.load import build_model, load_checkpoint
from train.tasks.clip import Config

pytestmark = pytest.mark.usefixtures("micro_models", "one_thread")
MakeShards = Callable[..., str]


def config(build: str, output: Path | str, **values: Any) -> TrainConfig:
    return runs.config("clip", build, output, **values)


def test_the_loss_goes_down(make_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert loop.train(config(make_shards(64), out, epochs=12.0, tensorboard=True)) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    rows = lines(out)
    assert [row["step"] for row in rows] == list(range(4, 49, 4))
    assert rows[-1]["samples_seen"] == 48 * 16 == result["samples_seen"]
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    assert rows[-1]["epoch"] == 12.0
    assert rows[-1]["repeats"] == [12.0]
    assert result["checkpoint"] == str(out / "checkpoint.pt")
    assert result["steps"] == 48
    assert "steps      48, of which 4 warm-up" in captured.err
    assert "samples    64 to an epoch" in captured.err
    assert any((out / "tensorboard").iterdir())
    assert Config.from_flags({"config": str(out / "config.yaml")}).digest == config("", out, epochs=12.0).digest
    assert not (out / ".lock").exists()


@pytest.mark.parametrize("loader", ["threads", "process"])
def test_resuming_at_any_step_gives_the_same_bits(loader: str, make_shards: MakeShards, tmp_path: Path) -> None:
    build, whole = make_shards(40), tmp_path / "whole"
    options: dict[str, Any] = {"checkpoint_every": 1, "samples_seen": 5 * 16, "grad_clip": 1.0, "captions": "sampled"}
    options["augment"] = {"flip": 0.5, "color_jitter": [0.4, 0.4, 0.4, 0.1], "scale": [0.5, 1.0]}
    loop.train(config(build, whole, keep=100, **options))
    for step in (1, 4):
        part = tmp_path / f"from-{step}"
        part.mkdir()
        shutil.copy(whole / f"checkpoint-{step:09d}.pt", part / "checkpoint.pt")
        loop.train(config(build, part, workers=2, loader=loader, **options))
        assert same_bits(part, whole), f"from step {step}"


def test_equal_seeds_equal_weights_and_others_differ(make_shards: MakeShards, tmp_path: Path) -> None:
    build = make_shards(20)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        loop.train(config(build, tmp_path / name, seed=seed, epochs=1.0))
    assert same_bits(tmp_path / "a", tmp_path / "b")
    weights = [tensors(tmp_path / name)["model.visual.conv1.weight"] for name in ("a", "c")]
    assert not torch.equal(*weights)


def test_a_finished_training_has_nothing_to_do(make_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build, out = make_shards(20), tmp_path / "run"
    loop.train(config(build, out))
    before = (out / "checkpoint.pt").read_bytes()
    capsys.readouterr()
    assert loop.train(config(build, out)) == 0
    captured = capsys.readouterr()
    assert "nothing to do" in captured.err
    assert json.loads(captured.out)["steps"] == 3
    assert (out / "checkpoint.pt").read_bytes() == before


def test_a_continued_log_has_each_step_once(make_shards: MakeShards, tmp_path: Path) -> None:
    build, out = make_shards(32), tmp_path / "run"
    options: dict[str, Any] = {"checkpoint_every": 3, "keep": 9, "log_every": 1, "samples_seen": 8 * 16}
    loop.train(config(build, out, **options))
    first = lines(out)
    shutil.copy(out / "checkpoint-000000003.pt", out / "checkpoint.pt")
    with (out / "log.jsonl").open("a") as file:
        file.write('{"step": 9, "lo')
    loop.train(config(build, out, **options))
    assert [row["step"] for row in lines(out)] == list(range(1, 9))
    assert [row["loss"] for row in lines(out)] == [row["loss"] for row in first]


def test_another_data_set_or_setting_is_refused(make_shards: MakeShards, tmp_path: Path) -> None:
    build, other, out = make_shards(20), make_shards(20, "other", seed=5), tmp_path / "run"
    loop.train(config(build, out, epochs=1.0))
    for changed in (config(other, out, epochs=1.0), config(build, out, epochs=1.0, lr=0.1), config(build, out, epochs=1.0, samples=10)):
        with pytest.raises(UsageError, match="is of another training"):
            loop.train(changed)
    with pytest.raises(UsageError) as error:
        loop.train(config(build, out, epochs=1.0, augment=Augment(scale=(0.5, 1.0))))
    assert "is of another training: augment.scale: [0.9, 1.0] then, [0.5, 1.0] now\n" in str(error.value)
    assert loop.train(config(other, out, epochs=1.0, resume="never")) == 0


def test_a_loss_that_is_no_number_names_its_batch(make_shards: MakeShards, tmp_path: Path) -> None:
    build, out = make_shards(32), tmp_path / "run"
    with pytest.raises(RunError, match="not a number") as error:
        loop.train(config(build, out, lr=1e30, warmup=0, samples_seen=20 * 16, checkpoint_every=100))
    named = json.loads((out / "bad-batch.json").read_text())
    known = {sample.key for sample in read_samples(read_manifest(build))}
    assert len(named["uids"]) == 16
    assert set(named["uids"]) <= known
    assert named["uids"][0] in str(error.value)
    assert f"step {named['step']}:" in str(error.value)
    assert "--from an earlier checkpoint" in error.value.advice
    assert error.value.exit_code == 1
    assert not (out / "checkpoint.pt").exists()


@pytest.mark.parametrize(("scale", "skipped"), [(2.0**10, False), (2.0**127, True)])
def test_an_infinite_gradient_is_the_scalers_business(scale: float, skipped: bool, make_shards: MakeShards, tmp_path: Path) -> None:
    """The loop with --grad-clip and a scaler, in float32 on the CPU: norms are unscaled; a step that overflows is left out."""
    build, out = make_shards(20), tmp_path / "run"
    out.mkdir()
    made = run.build(config(build, out, samples_seen=16, log_every=1, grad_clip=0.5, model="micro-vit"), runs.CPU)
    made.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    before = {name: p.detach().clone() for name, p in made.trained.named_parameters()}
    assert loop._train(made, 0) == 0
    (row,) = lines(out)
    moved = [name for name, p in made.trained.named_parameters() if not torch.equal(p, before[name])]
    assert bool(moved) != skipped
    assert (made.scaler.get_scale() < scale) == skipped
    if not skipped:
        plain = tmp_path / "plain"
        loop.train(config(build, plain, samples_seen=16, log_every=1, grad_clip=0.5, model="micro-vit"))
        for name in ("loss", "grad_norm", "first_layer_grad_norm"):
            assert row[name] == pytest.approx(lines(plain)[0][name], rel=1e-4)
    else:
        assert row["grad_norm"] is None
        assert row["loss"] < 10


def test_norms_of_layers_are_of_the_gradient_before_clipping(make_shards: MakeShards, tmp_path: Path) -> None:
    build = make_shards(20)
    for name, clip in (("plain", None), ("clipped", 1e-3)):
        loop.train(config(build, tmp_path / name, samples_seen=16, log_every=1, model="micro-vit", grad_clip=clip))
    (plain,), (clipped,) = lines(tmp_path / "plain"), lines(tmp_path / "clipped")
    assert clipped["grad_norm"] > 1e-2
    assert clipped["first_layer_grad_norm"] == pytest.approx(plain["first_layer_grad_norm"], rel=1e-6)
    assert clipped["grad_norms"] == pytest.approx(plain["grad_norms"], rel=1e-6)


def test_bad_pictures_are_counted_over_all_processes(make_shards: MakeShards, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process has 8 bad samples, the other 8, of which it shares some; more than 10 distinct ones are too many."""
    made, _ = runs.built("clip", make_shards(64))
    made.loader.restore([(0, place, f"u{place}", "torn") for place in range(8)])
    own = dict(made.loader.bad)

    def other_has(places: range) -> None:
        theirs = {(0, place): BadSample(0, place, f"u{place}", "torn") for place in places}
        monkeypatch.setattr(distributed, "gather_objects", lambda value: [value, theirs if value is made.loader.bad else len(theirs)])

    other_has(range(8))
    made.check_bad()
    other_has(range(4, 12))
    with pytest.raises(RunError, match="12 of 64 samples cannot be used"):
        made.check_bad()
    assert made.loader.bad == own


def test_the_preflight_looks_at_the_samples_in_use(tmp_path: Path) -> None:
    """Sample 9 has a class that is out of range, in the second tar; sample 3 too few captions for nobody."""
    folder = runs.write_tars(tmp_path / "tars", lambda i, jpeg, caption: {"jpg": jpeg, "cls": b"9" if i == 9 else b"1"})
    assert shards_cli.main(["index", folder]) == 0
    options: dict[str, Any] = {"classes": 4, "epochs": 1.0, "batch_size": 8}
    for samples in (8, 9):
        run.build(runs.config("supervised", folder, "unused", samples=samples, **options), runs.CPU)
    for samples in (10, None):
        with pytest.raises(UsageError, match="9"):
            run.build(runs.config("supervised", folder, "unused", samples=samples, **options), runs.CPU)


def test_the_profile_names_what_limits(make_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert loop.train(config(make_shards(40), tmp_path / "run", profile=True, model="micro-vit")) == 0
    result = json.loads(capsys.readouterr().out)
    rates = result["samples_per_s"]
    slower = min(("loader alone", "model alone"), key=lambda name: rates[name])
    assert result["limited_by"] == slower
    assert 0 < rates["both"] < 1.5 * rates[slower]  # the clock of a shared machine
    assert 0 < result["mfu"] < 1
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_is_a_model_to_use(make_shards: MakeShards, tmp_path: Path) -> None:
    build, out = make_shards(24), tmp_path / "run"
    loop.train(config(build, out, samples=20, augment={"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}))
    loaded = load_checkpoint(str(out))
    assert (loaded.image_size, loaded.step, loaded.samples_seen) == (32, 3, 48)
    assert loaded.mean == loaded.std == (0.5, 0.5, 0.5)
    assert loaded.manifests == [{"digest": read_manifest(build).digest, "weight": None, "samples": 20}]
    assert loaded.config["model"] == "micro-rn"
    assert not loaded.model.training
    stored = state(out)["state_dict"]
    assert all(torch.equal(value, stored[name]) for name, value in loaded.model.state_dict().items())
    with torch.no_grad():
        images = loaded.embed_images(torch.zeros(2, 3, 32, 32))
        texts = loaded.embed_texts(["a red circle"])
    assert images.shape == (2, 32)
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(1))


def test_builds_are_mixed_by_share(make_shards: MakeShards, tmp_path: Path) -> None:
    a, b = make_shards(24, "a"), make_shards(40, "b", seed=3)
    both = config("", tmp_path / "run", manifest=(f"{a}@3", f"{b}@1"), samples_seen=64)
    assert loop.train(both) == 0
    saved = state(tmp_path / "run")["manifests"]
    assert [(m["weight"], m["samples"]) for m in saved] == [(3.0, 24), (1.0, 40)]
    assert lines(tmp_path / "run")[-1]["repeats"] == [48 / 24, 16 / 40]


def test_an_average_of_weights_is_a_plain_loop(make_shards: MakeShards, tmp_path: Path) -> None:
    """θ ← d·θ + (1 − d)·w after each step, d = min(0.9, 1 − (1 + updates)^(−2/3)), from the saved weights of every step."""
    out = tmp_path / "run"
    loop.train(config(make_shards(40), out, samples_seen=6 * 16, ema=0.9, checkpoint_every=1, keep=9))
    torch.manual_seed(0)
    average = build_model("micro-rn").state_dict()
    for update in range(6):
        decay = min(0.9, 1 - (1 + update) ** (-2 / 3))
        weights = state(out, f"checkpoint-{update + 1:09d}.pt")["state_dict"]
        for name, value in weights.items():
            average[name] = decay * average[name] + (1 - decay) * value if value.is_floating_point() else value
    averaged = load_checkpoint(str(out), ema=True).model.state_dict()
    last = load_checkpoint(str(out)).model.state_dict()
    for name, value in average.items():
        torch.testing.assert_close(averaged[name], value, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(averaged["visual.conv1.weight"], last["visual.conv1.weight"], rtol=1e-5, atol=1e-7)
    assert state(out)["ema"].keys() >= {f"module.{name}" for name in last}


def test_pictures_that_are_replaced_are_told_of(make_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build, out = make_shards(32, recode=lambda i, jpeg: jpeg[:60] if i in (3, 8) else jpeg), tmp_path / "run"
    assert loop.train(config(build, out, samples_seen=96, log_every=1, json=False, strict=True)) == 1
    captured = capsys.readouterr()
    torn = [sample.key for sample in read_samples(read_manifest(build)) if len(sample.members["jpg"]) == 60]
    assert len(torn) == 2
    assert all(f"warning: replaced: {uid}:" in captured.err for uid in torn)
    counts = [row["replaced"] for row in lines(out)]
    assert sum(counts) == 6  # both samples in each of three epochs
    assert "replaced: 6 samples that could not be decoded" in captured.err
    assert sorted(uid for _, _, uid, _ in state(out)["bad"]) == sorted(torn)
    assert loop.train(config(build, out, samples_seen=96, strict=True)) == 1  # nothing to do, and still not fine
    assert loop.train(config(build, tmp_path / "other", samples_seen=96)) == 0


def test_too_many_bad_pictures_stop_a_training(make_shards: MakeShards, tmp_path: Path) -> None:
    build = make_shards(64, recode=lambda i, jpeg: b"<html>" if i % 4 == 0 else jpeg)
    with pytest.raises(RunError, match=r"1[1-6] of 64 samples cannot be used, more than --max-bad-share 0\.01") as error:
        loop.train(config(build, tmp_path / "run", epochs=1.0))
    assert str(error.value).count("\n  ") >= 8
    assert error.value.exit_code == 1
    assert loop.train(config(build, tmp_path / "run", epochs=1.0, max_bad_share=0.25)) == 0


CAPTIONLESS = {
    "no-caption-member": lambda i, jpeg, caption: {"jpg": jpeg, "cls": b"1"},
    "caption-only-in-json": lambda i, jpeg, caption: {"jpg": jpeg, "json": json.dumps({"caption": caption}).encode()},
    "empty-captions": lambda i, jpeg, caption: {"jpg": jpeg, "txt": b""},
    "blank-captions": lambda i, jpeg, caption: {"jpg": jpeg, "txt": b" \n"},
}


@pytest.mark.parametrize("case", CAPTIONLESS)
def test_a_set_without_captions_is_refused_before_the_first_step(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = runs.write_tars(tmp_path / "data", CAPTIONLESS[case])
    assert shards_cli.main(["index", folder]) == 0
    capsys.readouterr()
    flags = ["--manifest", folder, "--output", str(tmp_path / "run"), "--model", "micro-rn", "--batch-size", "8", "--epochs", "1"]
    assert cli.main(["clip", *flags]) == 2
    told = capsys.readouterr().err
    assert folder in told
    if case == "no-caption-member":
        assert ".jpg" in told
        assert ".cls" in told
    assert not (tmp_path / "run").exists()
    small = ["--mlp-hidden", "16", "--mlp-out", "8", "--loader", "threads", "--no-tensorboard"]
    assert cli.main(["simclr", *flags, *small]) == 0  # which reads no captions


def test_some_captions_that_are_missing_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = runs.write_tars(tmp_path / "data", lambda i, jpeg, caption: {"jpg": jpeg, "txt": b"" if i % 4 == 0 else caption.encode()})
    assert shards_cli.main(["index", folder]) == 0
    assert loop.train(config(folder, tmp_path / "run", epochs=2.0, batch_size=8, log_every=1, strict=True)) == 1
    told = capsys.readouterr().err
    assert "4 samples with an empty .txt, such as 00000.tar: s000000" in told
    assert "empty captions: 8 samples were trained on with an empty caption" in told
    assert sum(row.get("empty_captions", 0) for row in lines(tmp_path / "run")) == 8


@pytest.mark.parametrize("foreign", [True, False])
def test_a_missing_shard_is_refused_before_the_first_step(foreign: bool, make_shards: MakeShards, tmp_path: Path) -> None:
    if foreign:
        folder = runs.write_tars(tmp_path / "data", lambda i, jpeg, caption: {"jpg": jpeg, "txt": caption.encode()})
        assert shards_cli.main(["index", folder]) == 0
    else:
        folder = make_shards(16)
    tar = Path(folder) / "00001.tar"
    content = tar.read_bytes()
    for wrong in (None, content[:-512]):
        tar.unlink(missing_ok=True)
        if wrong is not None:
            tar.write_bytes(wrong)
        with pytest.raises(UsageError, match=r"00001\.tar: (no such file|[\d,]+ bytes)"):
            loop.train(config(folder, tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    assert tarfile.is_tarfile(Path(folder) / "00000.tar")


def test_two_trainings_in_one_folder_are_refused(make_shards: MakeShards, tmp_path: Path) -> None:
    build, out = make_shards(20), tmp_path / "run"
    out.mkdir()
    with fs.locked(str(out)), pytest.raises(UsageError, match="another process is writing here") as error:
        loop.train(config(build, out))
    assert error.value.exit_code == 2
    assert not (out / "log.jsonl").exists()
    assert loop.train(config(build, out, epochs=1.0)) == 0


def test_outputs_that_are_no_folder_are_refused(make_shards: MakeShards, tmp_path: Path) -> None:
    build, file, link = make_shards(20), tmp_path / "file", tmp_path / "link"
    file.write_text("mine")
    link.symlink_to(tmp_path / "absent" / "folder")
    for output in (file, file / "run", link):
        with pytest.raises(UsageError, match="output"):
            loop.train(config(build, output))
    assert file.read_text() == "mine"


@pytest.mark.slow
def test_bfloat16_and_vision_transformers_train_too(make_shards: MakeShards, tmp_path: Path) -> None:
    options: dict[str, Any] = {"model": "tiny-vit-32", "precision": "bf16", "channels_last": False, "epochs": 1.0, "loader": "process"}
    assert loop.train(config(make_shards(32), tmp_path / "run", **options)) == 0
    assert all(value.dtype == torch.float32 for value in tensors(tmp_path / "run").values() if value.is_floating_point())


@pytest.mark.skipif(torch.cuda.is_available(), reason="the refusal is about machines without CUDA")
def test_float16_and_absent_devices_are_refused(make_shards: MakeShards, tmp_path: Path) -> None:
    build = make_shards(8)
    with pytest.raises(UsageError, match="float16 on a CPU"):
        loop.train(config(build, tmp_path / "run", precision="amp"))
    with pytest.raises(UsageError, match="no CUDA device"):
        loop.train(config(build, tmp_path / "run", device="cuda"))


def test_the_last_numbers_are_of_the_last_step(make_shards: MakeShards, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    loop.train(config(make_shards(40), out, samples_seen=6 * 16, log_every=1))
    result = json.loads(capsys.readouterr().out)
    assert result["loss"] == lines(out)[-1]["loss"] == result["clip_loss"]
