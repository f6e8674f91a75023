"""The plain loop of the tutorials, as a baseline: one PIL image at a time, DataLoader workers, Adam, float32, nothing tuned.

    python -m benchmarks.dataloader_loop --steps 200 --workers 2 data=cifar10 data.root=DIRECTORY model=cnn
    python -m benchmarks.dataloader_loop --only-load ...     # batches alone, nothing trained

Net, data and batch size come from the overrides; the training is that of the tutorials. Prints one line of JSON.

Source: the loop, the loss that is read in every step and the transforms (padded random crop, flip, tensor, normalisation) as in
"Training a Classifier" of the PyTorch tutorials and the CIFAR-10 recipes built on it.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from arclight.benchmark.training_step import compose
from arclight.config.instantiate import build
from arclight.images.datamodule import ArrayDataModule, Arrays
from arclight.images.info import ImageInfo

NUM_WARMUP = 10  # steps before the clock starts


class Pictures(Dataset[tuple[Tensor, int]]):
    """Data set of PIL images with per-sample transforms."""

    def __init__(self, arrays: Arrays, data_info: ImageInfo, *, crop: int, flip: bool) -> None:
        self.images = arrays.images.permute(0, 2, 3, 1).numpy()  # (N, H, W, C), as image files give them
        self.labels = arrays.labels.tolist()
        self.crop, self.flip = crop, flip
        self.mean, self.std = (torch.tensor(values).view(-1, 1, 1) for values in (data_info.mean, data_info.std))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.images[index])
        if self.crop:
            width, height = image.size
            padded = ImageOps.expand(image, border=self.crop)
            left, top = random.randint(0, 2 * self.crop), random.randint(0, 2 * self.crop)
            image = padded.crop((left, top, left + width, top + height))
        if self.flip and random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
        return (pixels - self.mean) / self.std, self.labels[index]


def main() -> None:
    """Trains and prints samples per second in the steady state."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only-load", action="store_true")
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_args()
    settings = compose(options.overrides)
    data: ArrayDataModule = build(settings["data"], "data", {"seed": settings["seed"]})
    data.prepare_data()
    data.setup("fit")
    assert isinstance(data.data_info, ImageInfo)
    torch.manual_seed(settings["seed"])
    net: nn.Module = build(settings["model"], "model", {"data_info": data.data_info})
    augment = settings["data"].get("augment") or {}
    pictures = Pictures(
        data.arrays["train"], data.data_info, crop=augment.get("crop", 0), flip=bool(augment.get("flip", False))
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loader = DataLoader(
        pictures,
        batch_size=data.batch_size,
        shuffle=True,
        num_workers=options.workers,
        persistent_workers=options.workers > 0,
        drop_last=True,
    )
    if options.only_load:
        print(json.dumps(load(loader, options.steps, device)))
        return
    net.to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    print(json.dumps(train(net, loader, optimizer, options.steps, device)))


def train(
    net: nn.Module, loader: Any, optimizer: torch.optim.Optimizer, num_steps: int, device: torch.device
) -> dict[str, float]:
    """Runs the loop and returns its speed."""
    criterion = nn.CrossEntropyLoss()
    net.train()
    began, step, running_loss, samples = 0.0, 0, 0.0, 0
    while step < NUM_WARMUP + num_steps:
        for batch in loader:
            inputs, labels = (tensor.to(device) for tensor in batch)
            if step == NUM_WARMUP:
                began = time.perf_counter()
            optimizer.zero_grad()
            loss = criterion(net(inputs), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
            samples += len(labels) if step >= NUM_WARMUP else 0
            step += 1
            if step == NUM_WARMUP + num_steps:
                break
    seconds = time.perf_counter() - began
    return {"train/samples_per_s": samples / seconds, "train/step_ms": 1000 * seconds / num_steps, "loss": running_loss / step}


def load(loader: Iterable[Any], num_batches: int, device: torch.device) -> dict[str, float]:
    """Moves batches to the device, epoch after epoch, and returns batches, samples, tokens and bytes per second."""
    began, step, samples, tokens, size = 0.0, 0, 0, 0, 0
    while step < NUM_WARMUP + num_batches:
        for batch in loader:
            if step == NUM_WARMUP:
                began, samples, tokens, size = time.perf_counter(), 0, 0, 0
            named = dict(batch) if hasattr(batch, "keys") else dict(enumerate(batch))
            moved = [tensor.to(device) for tensor in named.values()]
            samples += len(moved[0])
            tokens += int(named["attention_mask"].sum()) if "attention_mask" in named else 0
            size += sum(tensor.nbytes for tensor in (moved if "attention_mask" in named else moved[:1]))
            step += 1
            if step == NUM_WARMUP + num_batches:
                break
    if device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    numbers = {"load/batches_per_s": num_batches / seconds, "load/bytes_per_s": size / seconds}
    numbers["train/samples_per_s"] = samples / seconds
    return numbers | ({"train/tokens_per_s": tokens / seconds} if tokens else {})


if __name__ == "__main__":
    main()
