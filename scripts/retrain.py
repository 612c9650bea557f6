"""Train the selected run of a cell once more, keeping checkpoints; its sweep must be finished.

python scripts/retrain.py model=mlp n_per_class=51
"""

import sys

from omegaconf import DictConfig

from repro.pipeline import tasks
from repro.pipeline.composition import claimed_config, run_application
from repro.pipeline.experiment import retrain_task


def main(cfg: DictConfig) -> None:
    try:
        tasks.run(retrain_task(claimed_config(cfg)))
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    run_application(main, "train")
