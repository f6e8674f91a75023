"""Train and test a model: `python train.py key=value ...`; `python train.py --help` lists the groups and their options."""

import math
import sys

from arclight.console.interrupt import report_interrupt

with report_interrupt():  # these take a second
    import hydra
    from omegaconf import DictConfig

    from arclight.config.compose import from_hydra, report_errors
    from arclight.config.locations import VERSION_BASE
    from arclight.config.other_templates import translate_arguments
    from arclight.config.renamed import rename_arguments
    from arclight.console.output import print_loading
    from arclight.launch import multirun


@hydra.main(config_path="conf", config_name="train", **VERSION_BASE)
def train(config: DictConfig) -> float:
    """Returns the best value of the monitored metric, for sweepers; nan for a failed run of a multirun."""
    with report_errors(), multirun.continue_on_error():
        print_loading()
        from arclight.launch.launcher import run  # imports torch, which --help and --cfg do not need

        return run(from_hydra(config)).score
    return math.nan


if __name__ == "__main__":
    rename_arguments(sys.argv)
    with report_errors():
        translate_arguments(sys.argv)
    with report_errors():
        train()
