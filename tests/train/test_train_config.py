"""The configuration of a training: flags over file over defaults, and what is refused."""

from __future__ import annotations

import dataclasses
import decimal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from shards.core import recipes, registry
from shards.core.errors import UsageError
from tests.train import runs
from train import cli
from train.config import RECIPES, TrainConfig
from train.data.augment.presets import preset
from train.tasks import byol, clip, simclr, slip, supervised
from train.tasks.clip import Config


def config(**values: Any) -> TrainConfig:
    return Config.from_flags({"manifest": ("a",), "output": "out", "epochs": 1.0, **values})


def test_flags_override_the_file_even_with_the_default(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("manifest: [x@2]\noutput: there\nlr: 0.5\nseed: 7\nepochs: 3\naugment: {flip: 0.5}\n")
    got = Config.from_flags({"config": str(file), "seed": 0, "model": "RN101"})
    assert (got.lr, got.seed, got.model, got.epochs, got.augment.flip) == (0.5, 0, "RN101", 3.0, 0.5)
    assert got.sources() == [("x", 2.0)]


def test_a_budget_on_the_command_line_replaces_the_files(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("manifest: [x]\noutput: there\nepochs: 3\nwarmup: 5\n")
    got = Config.from_flags({"config": str(file), "samples_seen": 100, "warmup_samples": 10})
    assert (got.epochs, got.samples_seen, got.warmup, got.warmup_samples) == (None, 100, None, 10)
    got.check()


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    before = config(lr=1e-4, samples=10, grad_clip=1.0)
    file = tmp_path / "config.yaml"
    file.write_text(before.to_yaml())
    assert Config.from_flags({"config": str(file)}) == dataclasses.replace(before, config=str(file))


@pytest.mark.parametrize("name", sorted(p.stem for p in RECIPES.glob("*.yaml")))
def test_recipes_are_complete_but_for_the_data(name: str) -> None:
    task = yaml.safe_load((RECIPES / f"{name}.yaml").read_text()).get("task", "clip")
    module: Any = registry.get("train.tasks", task)
    trunk = {"model": "RN50"} if module.Config.TASK == "finetune" else {}  # what is tuned is the user's
    module.Config.from_flags({"config": name, "manifest": ("a",), "output": "out", **trunk}).check()


def test_the_published_recipe_has_the_published_numbers() -> None:
    got = Config.from_flags({"config": "clip-rn50-paper"})
    optimiser = (got.lr, got.beta1, got.beta2, got.eps, got.weight_decay, got.warmup)
    assert (got.model, got.batch_size, got.epochs, optimiser) == ("RN50", 1024, 16, (1e-3, 0.9, 0.999, 1e-8, 0.1, 5000))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"manifest": ()}, "no data"),
        ({"output": ""}, "no output"),
        ({"epochs": None}, "no budget"),
        ({"samples_seen": 5}, "two budgets"),
        ({"warmup": 1, "warmup_samples": 1}, "two warm-ups"),
        ({"warmup": 1, "warmup_epochs": 1.0}, "two warm-ups"),
        ({"batch_size": 0}, "batch_size: found 0"),
        ({"epochs": -1.0}, "epochs: found -1"),
    ],
)
def test_what_cannot_be_trained_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config(**values).check()


def test_a_trial_alone_is_told_what_budget_it_means() -> None:
    with pytest.raises(UsageError) as error:
        config(epochs=None, steps=3, batch_size=32).check()
    assert error.value.advice == "--steps alone is no budget; for 3 steps: --samples-seen 96"


def test_a_measurement_needs_no_output_folder() -> None:
    config(output="", profile=True).check()
    config(output="", dry_run=True).check()
    with pytest.raises(UsageError, match="--dry-run and --profile"):
        config(profile=True, dry_run=True).check()


def test_unknown_recipes_and_keys_are_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        Config.from_flags({"config": "clip-rn50-papr"})
    assert "did you mean 'clip-rn50-paper'?" in str(error.value)
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump({"learning_rate": 1}))
    with pytest.raises(UsageError, match="learning_rate"):
        Config.from_flags({"config": str(tmp_path / "bad.yaml")})
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(UsageError, match="found"):
        Config.from_flags({"config": str(tmp_path / "list.yaml")})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", ("a", None)),
        ("a@2", ("a", 2.0)),
        ("a@0.25", ("a", 0.25)),
        ("me@home/x", ("me@home/x", None)),
        ("s3://b/x@1e1", ("s3://b/x", 10.0)),
    ],
)
def test_paths_with_shares(text: str, expected: tuple[str, float | None]) -> None:
    assert config(manifest=(text,)).sources() == [expected]


@pytest.mark.parametrize("text", ["a@0", "a@-1", "a@nan", "a@inf"])
def test_a_share_must_be_a_positive_number(text: str) -> None:
    with pytest.raises(UsageError, match="share"):
        config(manifest=(text,)).sources()


def test_steps_and_warmup() -> None:
    assert config(epochs=2.0, batch_size=32).steps_of(100) == 7  # 200 samples need 6.25 batches
    assert config(epochs=None, samples_seen=64, batch_size=32).steps_of(100) == 2
    assert config(epochs=0.5, batch_size=50).steps_of(100) == 1
    assert config(warmup_samples=65, batch_size=32).warmup_steps(100, 320) == 3
    assert config(warmup_epochs=0.3, batch_size=32).warmup_steps(100, 320) == 3
    assert config(warmup=9).warmup_steps(10, 320) == 9
    trial = config(epochs=5.0, batch_size=32, steps=3, warmup=100)
    assert (trial.steps_of(320), trial.steps_of(10), trial.warmup_steps(3, 320)) == (3, 2, 1)
    assert [config().warmup_steps(n, 320) for n in (5, 100, 10**6)] == [0, 10, 2000]


@pytest.mark.parametrize("text", ["0.1", "0.3", "0.7", "1.1", "2.3", "1e-05", "33.333", "16", "90"])
def test_fractions_of_epochs_are_exact(text: str) -> None:
    """By decimal arithmetic: 0.1 · 30 of floats is 3.0000000000000004, which would be a step too many."""
    for epoch_samples in (10, 30, 7, 12_345_678):
        for batch_size in (1, 3, 1024):
            wanted = decimal.Decimal(text) * epoch_samples / 1
            steps = int((wanted / batch_size).to_integral_value(decimal.ROUND_CEILING))
            assert config(epochs=float(text), batch_size=batch_size).steps_of(epoch_samples) == steps
            assert config(warmup_epochs=float(text), batch_size=batch_size).warmup_steps(10**9, epoch_samples) == steps


def test_the_digest_ignores_where_and_how_fast() -> None:
    base = config()
    same = config(output="elsewhere", workers=3, device="cpu", manifest=("b",), log_every=1, json=True)
    assert base.digest == same.digest
    assert base.digest != config(lr=2e-3).digest
    assert base.digest != config(augment={"flip": 0.5}).digest
    assert base.digest == config(accum=4, compile=True, loader="threads", strict=True, tensorboard=False).digest
    assert base.digest != simclr.Config.from_flags({"manifest": ("a",), "output": "out", "epochs": 1.0}).digest
    assert base.digest != config(bn_group=8).digest


@pytest.mark.parametrize(
    ("module", "presets"),
    [
        (clip, {"augment": "openclip"}),
        (simclr, {"augment": "simclr"}),
        (slip, {"augment": "slip", "augment_ssl": "simclr"}),
        (supervised, {"augment": "supervised"}),
        (byol, {"augment": "byol-1", "augment_second": "byol-2"}),
    ],
)
def test_each_task_has_its_own_augmentation(module: Any, presets: dict[str, str], tmp_path: Path) -> None:
    got = module.Config.from_flags({"manifest": ("a",), "output": "out", "epochs": 1.0})
    assert got.augmentations() == tuple(presets)
    for field, name in presets.items():
        assert getattr(got, field) == preset(name)
        changed = module.Config.from_flags({field: {"gray": 0.75}})
        assert getattr(changed, field) == dataclasses.replace(preset(name), gray=0.75)
        assert getattr(module.Config.from_flags({field: "paper-code"}), field) == preset("paper-code")
    file = tmp_path / "config.yaml"
    file.write_text(got.to_yaml())
    assert module.Config.from_flags({"config": str(file)}) == dataclasses.replace(got, config=str(file))
    assert yaml.safe_load(file.read_text())["task"] == module.Config.TASK == module.__name__.rpartition(".")[2]


def test_a_recipe_of_another_task_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("task: simclr\nepochs: 1\n")
    with pytest.raises(UsageError, match="a recipe of the task 'simclr'") as error:
        clip.Config.from_flags({"config": str(file)})
    assert error.value.advice == "train simclr"
    assert simclr.Config.from_flags({"config": str(file)}).epochs == 1.0


def test_boards_by_name_or_without_tensorboard() -> None:
    assert config().report_to == ("tensorboard",)
    assert config(tensorboard=False).report_to == ()
    assert config(report_to=("wandb",)).report_to == ("wandb",)
    assert config(report_to=("wandb", "tensorboard"), tensorboard=False).report_to == ("wandb",)
    assert config(report_to=("wandb",), tensorboard=True).report_to == ("tensorboard", "wandb")


def test_from_is_a_key_and_a_flag(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("from: a.pt\n")
    assert Config.from_flags({"config": str(file)}).from_ == "a.pt"
    assert Config.from_flags({"config": str(file), "from_": "b.pt"}).from_ == "b.pt"


REFUSED = [
    *(("--epochs", value) for value in ("nan", "inf", "0", "-1")),
    *(("--lr", value) for value in ("-1", "0", "nan", "inf")),
    *(("--beta1", value) for value in ("1", "-0.1")),
    *(("--beta2", value) for value in ("1.5", "nan")),
    *(("--eps", value) for value in ("0", "inf")),
    *(("--momentum", value) for value in ("1", "nan")),
    *(("--warmup", value) for value in ("-5", "x")),
    *(("--warmup-epochs", value) for value in ("-1", "inf")),
    *(("--grad-clip", value) for value in ("0", "-1", "nan")),
    *(("--weight-decay", value) for value in ("-1", "nan")),
    *(("--layer-decay", value) for value in ("0", "1.5")),
    *(("--ema", value) for value in ("1", "-1")),
    *(("--seed", value) for value in ("10000000000", "-1", "4294967296", "1.5")),
    *(("--drop-path", value) for value in ("1", "-0.5")),
    *(("--keep", value) for value in ("-1",)),
    *(("--workers", value) for value in ("-2",)),
    *(("--samples", value) for value in ("0", "-4")),
    *(("--accum", value) for value in ("0", "3")),
    *(("--bn-group", value) for value in ("0", "1", "3")),
    *(("--log-every", value) for value in ("0",)),
    *(("--checkpoint-every", value) for value in ("0",)),
    *(("--checkpoint-minutes", value) for value in ("-1", "nan")),
    *(("--max-bad-share", value) for value in ("2", "nan")),
    *(("--layer", value) for value in ("a@1.1", "a@x", "a@nan", "@0.5")),
    *(("--device", value) for value in ("tpu", "cuda:x")),
    *(("--image-size", value) for value in ("16", "0", "-32")),
    *(("--batch-size", value) for value in ("1", "0", "-16")),
    *(("--model", value) for value in ("tiny-rn-23",)),
    *(("--augment", value) for value in ("simclrr",)),
    *(("--precision", value) for value in ("fp8",)),
    *(("--optimizer", value) for value in ("adam",)),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    from shards import cli as shards_cli

    folder = runs.write_tars(tmp_path_factory.mktemp("sets") / "data", lambda i, jpeg, caption: {"jpg": jpeg, "txt": caption.encode()})
    assert shards_cli.main(["index", folder]) == 0
    return folder


def command(data: str, output: Path) -> list[str]:
    fixed = ["--batch-size", "16", "--epochs", "1", "--no-tensorboard", "--loader", "threads", "--model", "tiny-rn-32"]
    return ["clip", "--manifest", data, "--output", str(output), *fixed]


@pytest.mark.parametrize(("flag", "value"), REFUSED)
def test_bad_flags_are_refused_by_name(flag: str, value: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*command(data, tmp_path / "run"), f"{flag}={value}"]) == 2
    told = capsys.readouterr().err
    name = flag.removeprefix("--")
    # The flag itself, or the words of it: "bn_group: 0", "image size 16", "a larger --batch-size".
    assert any(form in told for form in (flag, name.replace("-", "_"), name.replace("-", " "))), told
    assert "Traceback" not in told
    assert not (tmp_path / "run").exists()


def test_an_output_that_is_a_file_is_refused(data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run"
    file.write_text("mine")
    assert cli.main(command(data, file)) == 2
    assert "output" in capsys.readouterr().err
    assert file.read_text() == "mine"


def test_the_command_line(make_shards: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build, out = make_shards(20), tmp_path / "run"
    flags = ["clip", "--manifest", f"{build}/manifest.json", "--output", str(out), "--config", "clip-tiny-cpu", "--model", "tiny-rn-32"]
    assert cli.main([*flags, "--epochs", "1", "--batch-size", "8", "--no-tensorboard", "--loader", "threads"]) == 0
    assert capsys.readouterr().out.startswith(f"{out}/checkpoint.pt: 3 steps, 24 samples seen, loss ")
    assert cli.main(["clip", "--manifest", str(tmp_path / "absent"), "--output", str(out), "--epochs", "1"]) == 2
    assert cli.main(["clip", "--manifest", build, "--output", str(out)]) == 2
    assert "exactly one of --epochs and --samples-seen" in capsys.readouterr().err
    assert cli.main(["clp"]) == 2
    assert "did you mean 'clip'?" in capsys.readouterr().err


def test_every_task_is_a_verb() -> None:
    verbs = cli.commands()
    assert {"clip", "simclr", "slip", "supervised", "byol"} <= verbs.keys()
    assert all(verbs[task].run == "train.loop:train" for task in runs.TASKS)
    assert verbs["clip"].config is Config


@pytest.mark.parametrize("values", [{"lr_floor": 2e-3}, {"schedule": "slip_cosine", "lr": 9e-6}])
def test_a_floor_above_the_peak_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="the learning rate would rise"):
        config(**{"lr": 1e-3, **values}).check()
    config(lr=1e-3, lr_floor=1e-3).check()


def test_numbers_that_yaml_takes_for_text_are_numbers(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("lr: 1e-3\ngrad_clip: 1e0\naugment: {scale: [1e-1, 1]}\n")
    got = Config.from_flags({"config": str(file)})
    assert (got.lr, got.grad_clip, got.augment.scale) == (0.001, 1.0, (0.1, 1.0))
    for text in ("lr: fast", "lr: 1e-3x", "lr: -1e-3", "batch_size: 1e3", "grad_clip: true"):
        file.write_text(text + "\n")
        with pytest.raises(UsageError, match=text.partition(":")[0]):
            Config.from_flags({"config": str(file)})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("lr: 0.1\nseed: 1\nlr: 0.2\n", "the key 'lr' in line 1 and again in line 3"),
        ("noise:\n  labels: 0.1\n  labels: 0.1\n", "the key 'labels' in line 2 and again in line 3"),
        ("layer: [{a: 1, a: 2}]\n", "the key 'a' in line 1 and again in line 1"),
    ],
)
def test_a_key_that_stands_twice_is_refused(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=told):
        Config.from_flags({"config": str(file)})


def test_anchors_and_merges_are_read_as_pyyaml_reads_them(tmp_path: Path) -> None:
    text = "noise: &a {labels: 0.1, seed: 3}\nother: {<<: *a, seed: 4}\nlist: [*a, *a]\n"
    (tmp_path / "own.yaml").write_text(text)
    assert recipes.read(str(tmp_path / "own.yaml"), tmp_path) == yaml.safe_load(text)
