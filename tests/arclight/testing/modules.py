"""A project that knows nothing of arclight: what users of Lightning bring along."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, IterableDataset, WeightedRandomSampler, random_split
from torchmetrics import MaxMetric, MeanMetric
from torchmetrics.classification import MulticlassAccuracy


class NoisyImages(Dataset[tuple[Tensor, Tensor]]):
    """Images of three classes, whose augmentation draws from every generator."""

    def __init__(self, size: int = 93) -> None:
        source = torch.Generator().manual_seed(0)
        self.labels = torch.randint(0, 3, (size,), generator=source)
        self.images = torch.randn(size, 1, 8, 8, generator=source) + 0.5 * self.labels[:, None, None, None]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = 0.1 * (random.random() + float(np.random.random()) + torch.rand(1))
        return self.images[index] + noise, self.labels[index]


class NoisyImagesData(LightningDataModule):
    """In the style of lightning-hydra-template: it divides its batch size by the number of devices itself."""

    def __init__(self, batch_size: int = 8, num_workers: int = 0, is_weighted: bool = False) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.batch_size_per_device = batch_size
        self.splits: list[Any] = []

    @property
    def num_classes(self) -> int:
        return 3

    def setup(self, stage: str | None = None) -> None:
        if self.trainer is not None:
            self.batch_size_per_device = self.hparams.batch_size // self.trainer.world_size
        if not self.splits:
            self.splits = list(random_split(NoisyImages(), [61, 17, 15], generator=torch.Generator().manual_seed(42)))

    def _loader(self, number: int, **settings: Any) -> DataLoader[Any]:
        num_workers = self.hparams.num_workers
        return DataLoader(
            self.splits[number],
            batch_size=self.batch_size_per_device,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            **settings,
        )

    def train_dataloader(self) -> DataLoader[Any]:
        if self.hparams.is_weighted:
            weights = [1.0 + number % 3 for number in range(61)]
            return self._loader(0, sampler=WeightedRandomSampler(weights, 61, generator=torch.Generator().manual_seed(3)))
        return self._loader(0, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(1)

    def test_dataloader(self) -> DataLoader[Any]:
        return self._loader(2)


class Net(nn.Module):
    """A net that takes the number of classes, not metadata of ours."""

    def __init__(self, num_classes: int, hidden: int = 16, has_norm: bool = True, dropout: float = 0.2) -> None:
        super().__init__()
        norm = nn.BatchNorm1d(hidden) if has_norm else nn.Identity()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(64, hidden), norm, nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, num_classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits


class Classifier(LightningModule):
    """Takes net, optimizer and scheduler, stores them as hyperparameters, and logs metric objects."""

    def __init__(self, net: nn.Module, optimizer: Any, scheduler: Any = None) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.net = net
        self.train_accuracy, self.val_accuracy, self.test_accuracy = (MulticlassAccuracy(3, average="micro") for _ in range(3))
        self.train_loss, self.val_loss = MeanMetric(), MeanMetric()
        self.best_accuracy = MaxMetric()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        return logits

    def on_train_start(self) -> None:
        self.val_loss.reset()
        self.val_accuracy.reset()
        self.best_accuracy.reset()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        logits = self(batch[0])
        loss = functional.cross_entropy(logits, batch[1])
        self.train_loss(loss)
        self.train_accuracy(logits, batch[1])
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("train/accuracy", self.train_accuracy, on_step=False, on_epoch=True)
        self.log("train/batch_loss", loss, on_step=True, on_epoch=True)
        self.log("train/worst", loss, on_step=False, on_epoch=True, reduce_fx="max")
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        logits = self(batch[0])
        self.val_loss(functional.cross_entropy(logits, batch[1]))
        self.val_accuracy(logits, batch[1])
        self.log("val/loss", self.val_loss)
        self.log("val/accuracy", self.val_accuracy)

    def on_validation_epoch_end(self) -> None:
        self.best_accuracy(self.val_accuracy.compute())
        self.log("val/best_accuracy", self.best_accuracy.compute())

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        logits = self(batch[0])
        self.test_accuracy(logits, batch[1])
        self.log("test/accuracy", self.test_accuracy)

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self(batch[0]).argmax(1)

    def configure_optimizers(self) -> Any:
        optimizer = self.hparams.optimizer(params=self.trainer.model.parameters())
        if self.hparams.scheduler is None:
            return optimizer
        scheduler = self.hparams.scheduler(optimizer=optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val/loss"}}


class Gan(LightningModule):
    """Manual optimization of two optimizers; logs with the names it likes."""

    def __init__(self, latent: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(latent, 32), nn.ReLU(), nn.Linear(32, 64))
        self.discriminator = nn.Sequential(nn.Linear(64, 32), nn.LeakyReLU(), nn.Linear(32, 1))

    def training_step(self, batch: tuple[Tensor, Tensor]) -> None:
        real = batch[0].flatten(1)
        of_generator, of_discriminator = self.optimizers()
        noise, ones = torch.randn(len(real), self.hparams.latent), torch.ones(len(real), 1)
        loss = functional.binary_cross_entropy_with_logits
        self.toggle_optimizer(of_generator)
        generator_loss = loss(self.discriminator(self.generator(noise)), ones)
        self._step(of_generator, generator_loss)
        self.toggle_optimizer(of_discriminator)
        fake = self.discriminator(self.generator(noise).detach())
        discriminator_loss = (loss(self.discriminator(real), ones) + loss(fake, torch.zeros_like(ones))) / 2
        self._step(of_discriminator, discriminator_loss)
        self.log_dict({"g_loss": generator_loss, "d_loss": discriminator_loss}, prog_bar=True)

    def _step(self, optimizer: Any, loss: Tensor) -> None:
        self.manual_backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        self.untoggle_optimizer(optimizer)

    def configure_optimizers(self) -> Any:
        return [torch.optim.Adam(part.parameters(), 1e-3) for part in (self.generator, self.discriminator)]


class Table(Dataset[dict[str, Any]]):
    """Dicts of features, target and metadata."""

    def __init__(self, size: int, seed: int) -> None:
        self.features = torch.randn(size, 6, generator=torch.Generator().manual_seed(seed))

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> dict[str, Any]:
        features = self.features[index]
        return {"features": features + 0.01 * torch.randn(6), "target": features.sum(), "of": {"row": index}}


class Regression(LightningModule):
    """Has loaders of its own, two of them for validation, and reads the number of steps to make its scheduler."""

    def __init__(self, lr: float = 0.01, has_plateau: bool = False) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layers = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))
        self.monitor = "val_mse/dataloader_idx_0"
        self.register_buffer("average", torch.zeros(16, 6))

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0 or self.trainer.is_last_batch:  # after a step
            self.average.lerp_(self.layers[0].weight.detach(), 0.1)

    def _error(self, batch: dict[str, Any]) -> Tensor:
        return functional.mse_loss(self.layers(batch["features"])[:, 0], batch["target"])

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        loss = self._error(batch)
        self.log("train_mse", loss)
        return {"loss": loss}

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("val_mse", self._error(batch))
        self.log("val_batch", self._error(batch), on_step=True, on_epoch=False)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Table(50, 0), batch_size=8, shuffle=True)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        return [DataLoader(Table(20, 1), batch_size=8), DataLoader(Table(13, 2), batch_size=8)]

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), self.hparams.lr)
        scheduler: Any
        if self.hparams.has_plateau:
            scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, factor=0.5, threshold=0.3)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": self.monitor}}
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 0.05, total_steps=int(self.trainer.estimated_stepping_batches)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """An endless kind of data, cut at 40 samples."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for number in range(40):
            yield torch.randn(6) + number / 40, torch.tensor(float(number % 2))


class StatefulStream(Stream):
    """The same with a position to save."""

    number = 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while self.number < 40:
            self.number += 1
            yield torch.randn(6) + self.number / 40, torch.tensor(float(self.number % 2))
        self.number = 0

    def state_dict(self) -> dict[str, int]:
        return {"number": self.number}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.number = state["number"]


class OnStream(LightningModule):
    """Learns from a stream."""

    def __init__(self, is_stateful: bool = False, num_workers: int = 0) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = nn.Linear(6, 1)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = functional.mse_loss(self.layer(batch[0])[:, 0], batch[1])
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def train_dataloader(self) -> DataLoader[Any]:
        stream = StatefulStream() if self.hparams.is_stateful else Stream()
        return DataLoader(stream, batch_size=4, num_workers=self.hparams.num_workers)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.01, momentum=0.9)


class Illustrated(LightningModule):
    """Writes images to whatever loggers there are, and asks for their class."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 1)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self.layer(batch[0].flatten(1)).square().mean()

    def on_train_epoch_end(self) -> None:
        from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

        assert isinstance(self.loggers[0], CSVLogger)
        assert all(isinstance(logger, TensorBoardLogger) for logger in self.loggers[1:])
        for logger in self.loggers:
            logger.experiment.add_image("drawn", torch.zeros(3, 4, 4), self.current_epoch)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(NoisyImages(20), batch_size=8)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.01)
