"""Train and test a model: `python train.py key=value ...`; `python train.py --help` lists the groups and what they hold."""

import hydra
from omegaconf import DictConfig

from arclight.config import from_hydra, mistakes_told


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def train(config: DictConfig) -> float:
    """Hands sweepers the best value of the monitored metric."""
    with mistakes_told():
        composed = from_hydra(config)
        from arclight.experiment import run  # torch and lightning load here, so that --help and --cfg answer at once

        return run(composed).score


if __name__ == "__main__":
    with mistakes_told():
        train()
