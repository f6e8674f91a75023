"""Plain LightningModules of somebody who does not know this engine: a GAN and a regression on a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from arclight.checkpoint.contents import Restored


class Gan(LightningModule):
    """Its forward is the generator: noise (B, 8) -> images (B, 1, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8)))
        self.discriminator = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
        self.example_input_array = torch.zeros(1, 8)

    def forward(self, noise: Tensor) -> Tensor:
        return self.generator(noise)


class TableRegression(LightningModule):
    """Numbers (B, 3) and kinds (B,) -> mean and spread (B,), as a mapping."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds = nn.Embedding(4, 2)
        self.layer = nn.Linear(5, 2)
        self.example_input_array = {"numbers": torch.zeros(1, 3), "kinds": torch.zeros(1, dtype=torch.int64)}

    def forward(self, numbers: Tensor, kinds: Tensor) -> dict[str, Tensor]:
        mean, spread = self.layer(torch.cat([numbers, self.kinds(kinds)], dim=1)).unbind(1)
        return {"mean": mean, "spread": spread.exp()}


def restored(module: LightningModule, folder: Path, data_info: Any = None, data: dict[str, Any] | None = None) -> Restored:
    """Returns a module as `restore` returns it, of a run in `folder`."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 0\n")
    return Restored(
        module.eval(), data_info, {"data": data or {}, "seed": 0}, "table", "net", folder / "checkpoints" / "best.ckpt"
    )
