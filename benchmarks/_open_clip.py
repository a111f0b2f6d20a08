"""The peers of the training benchmarks, set up as their own projects do: open_clip's loader and trainer, and SLIP's two views.

Run as a program it is open_clip's training command with our small models known to it:
`python benchmarks/_open_clip.py --model tiny-rn-64 --train-data …`.
"""

from __future__ import annotations

import argparse
import gc
import io
import os
import random
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "train" / "models" / "configs"
ENDLESS = 2**31  # samples of an epoch of the peer's loader, where a benchmark stops by itself

Batches = Iterator[Any]


def known_models() -> Any:
    """Return open_clip with our small models known to it."""
    import open_clip

    open_clip.add_model_config(CONFIGS)
    return open_clip


def loader(tars: list[str], *, batch: int, workers: int, side: int, samples: int = ENDLESS, context: int = 77, seed: int = 0) -> Any:
    """Return the DataLoader of open_clip's trainer: webdataset, Pillow, its training transform and its tokenizer.

    Args:
        samples: of an epoch; it begins again behind them.
        context: tokens of a caption.
    """
    from open_clip.tokenizer import SimpleTokenizer
    from open_clip.transform import image_transform
    from open_clip_train.data import get_wds_dataset

    arguments = argparse.Namespace(
        train_data="::".join(tars),
        train_num_samples=samples,
        train_data_upsampling_factors=None,
        dataset_resampled=False,
        seed=seed,
        batch_size=batch,
        workers=workers,
        world_size=1,
    )
    transform = image_transform(side, is_train=True)
    return get_wds_dataset(arguments, transform, is_train=True, tokenizer=SimpleTokenizer(context_length=context)).dataloader


def batches(tars: list[str], **options: Any) -> Batches:
    """Yield (images, tokens) of `loader` without end; its workers stop when the generator is closed."""
    made = loader(tars, **options)
    try:
        yield from made
    finally:
        del made
        gc.collect()  # workers stop when their DataLoader goes, and it lies in a cycle


class TwoViews:
    """SLIP's data set for SimCLR over the images of tars: two augmented views by torchvision, on Pillow images.

    The recipe (Mu et al. 2021): RandomResizedCrop(0.08 to 1), ColorJitter(0.4, 0.4, 0.4, 0.1) with p = 0.8, gray with
    p = 0.2, Pillow's Gaussian blur of radius U(0.1, 2) with p = 0.5, flip, ImageNet's mean and std.
    """

    def __init__(self, tars: list[str], side: int) -> None:
        """List the images of all tars."""
        from torchvision import transforms

        self.places: list[tuple[str, int, int]] = []
        for path in tars:
            with tarfile.open(path) as tar:
                self.places += [(path, member.offset_data, member.size) for member in tar if member.name.endswith(".jpg")]
        self.view = transforms.Compose(
            [
                transforms.RandomResizedCrop(side, scale=(0.08, 1.0)),
                transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
                transforms.RandomGrayscale(p=0.2),
                transforms.RandomApply([blurred], p=0.5),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            ]
        )

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        from PIL import Image

        path, offset, size = self.places[index]
        with open(path, "rb") as file:
            content = os.pread(file.fileno(), size, offset)
        image = Image.open(io.BytesIO(content), formats=["JPEG"]).convert("RGB")
        return self.view(image), self.view(image)


def blurred(image: Any) -> Any:
    """Blur a Pillow image by a radius of U(0.1, 2)."""
    from PIL import ImageFilter

    return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


def two_views(tars: list[str], *, batch: int, workers: int, side: int) -> Batches:
    """Yield (first views, second views) without end, by a DataLoader as SLIP's; its workers stop when the generator is closed."""
    import torch

    made: Any = torch.utils.data.DataLoader(
        TwoViews(tars, side),  # type: ignore[arg-type]
        batch_size=batch,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        persistent_workers=True,
    )
    try:
        while True:
            yield from made
    finally:
        del made
        gc.collect()


def arguments(**values: Any) -> argparse.Namespace:
    """Return what open_clip's command would have parsed from these flags."""
    from open_clip_train.params import parse_args

    return parse_args(flags(**values))


def flags(**values: Any) -> list[str]:
    """Return flags as a list of words: `batch_size=64` becomes `--batch-size 64`."""
    words: list[str] = []
    for name, value in values.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return words


def optimizer(model: Any, options: argparse.Namespace) -> Any:
    """Return the optimiser that open_clip 3.3's main() makes: AdamW in two groups, the first without decay."""
    import torch

    plain, decayed = [], []
    for name, parameter in model.named_parameters():
        spared = parameter.ndim < 2 or any(part in name for part in ("bn", "ln", "bias", "logit_scale"))
        (plain if spared else decayed).append(parameter)
    groups = [{"params": plain, "weight_decay": 0.0}, {"params": decayed, "weight_decay": options.wd}]
    return torch.optim.AdamW(groups, lr=options.lr, betas=(options.beta1, options.beta2), eps=options.eps)


class Stepped:
    """Batches for open_clip's loop, with a clock: the steps behind the first `warm` ones are timed, from fetch to fetch.

    Attributes:
        wall: seconds of the timed steps, with the fetching of their batches.
        cpu: processor seconds of all processes in that time.
    """

    def __init__(self, source: Iterable[Any], *, warm: int, steps: int, cpu: Callable[[], float] = time.process_time) -> None:
        self.source, self.warm, self.steps, self._cpu = source, warm, steps, cpu
        self.num_batches = warm + steps
        self.num_samples = 1  # the loop prints it
        self.wall = self.cpu = 0.0

    def __iter__(self) -> Batches:
        iterator = iter(self.source)
        for number in range(self.num_batches):
            if number == self.warm:
                started, started_cpu = time.perf_counter(), self._cpu()
            yield next(iterator)
        # The loop comes back for another batch when its last step is done.
        self.wall, self.cpu = time.perf_counter() - started, self._cpu() - started_cpu


class Losses:
    """What open_clip's loop takes for a TensorBoard writer: keeps the loss of each step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Take one number."""
        if name == "train/loss":
            self.values.append(float(value))


class Trainer:
    """open_clip's model, optimiser, schedule and loop in this process, for batches of (images, tokens)."""

    def __init__(self, model: str, *, steps: int, weights: dict[str, Any] | None = None, **values: Any) -> None:
        """Build all that open_clip's main() builds.

        Args:
            model: the name of its configuration.
            steps: of the schedule.
            weights: to start from; its own, seeded with 0, otherwise.
            values: flags of open_clip's command.
        """
        import torch
        from open_clip_train.main import create_loss
        from open_clip_train.scheduler import cosine_lr

        self.options = arguments(model=model, log_every_n_steps=1, **values)
        self.options.rank, self.options.world_size, self.options.distributed = 0, 1, False
        self.options.distill = self.options.wandb = False
        torch.manual_seed(0)
        self.model = known_models().create_model(model, precision=self.options.precision, device=self.options.device, output_dict=True)
        if weights is not None:
            self.model.load_state_dict(weights)
        self.loss = create_loss(self.options)
        self.optimizer = optimizer(self.model, self.options)
        self.schedule = cosine_lr(self.optimizer, self.options.lr, self.options.warmup, steps)

    def train(self, stepped: Stepped) -> list[float]:
        """Run open_clip's train_one_epoch over some batches and return the loss of each step."""
        from open_clip_train.data import DataInfo, SharedEpoch
        from open_clip_train.train import train_one_epoch

        losses = Losses()
        data = {"train": DataInfo(dataloader=stepped, shared_epoch=SharedEpoch(0))}
        train_one_epoch(self.model, data, self.loss, 0, self.optimizer, None, self.schedule, None, self.options, tb_writer=losses)
        return losses.values


def main() -> None:
    """Run open_clip's training command."""
    known_models()
    from open_clip_train.main import main as train

    sys.exit(train(sys.argv[1:]))


if __name__ == "__main__":
    main()
