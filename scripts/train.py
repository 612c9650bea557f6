"""Train a block of learning rates of one cell of the grid; what is finished is skipped.

python scripts/train.py model=mlp n_per_class=37 lr_index=3           one training
python scripts/train.py model=mlp n_per_class=37 lr_index=all         all rates of a cell
python scripts/train.py -m experiment=embedded                        the whole grid, one cell after the other
python scripts/train.py -m data=mnist n_per_class=10,13 hydra/launcher=submitit_slurm
"""

import sys

from omegaconf import DictConfig

from repro.pipeline import tasks
from repro.pipeline.composition import claimed_config, run_application
from repro.pipeline.experiment import sweep_task


def main(cfg: DictConfig) -> None:
    try:
        tasks.run(sweep_task(claimed_config(cfg)))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    run_application(main, "train")
