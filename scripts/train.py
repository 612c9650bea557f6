"""Train a block of learning rates of one cell of the grid; what is finished is skipped.

python scripts/train.py model=mlp n_per_class=37 lr_index=3           one training
python scripts/train.py model=mlp n_per_class=37 lr_index=all         all rates of a cell
python scripts/train.py -m experiment=embedded                        the whole grid, one cell after the other
python scripts/train.py -m data=mnist n_per_class=10,13 hydra/launcher=submitit_slurm
"""

from repro.pipeline.composition import run_application
from repro.pipeline.config import Config
from repro.pipeline.experiment import sweep_task
from repro.pipeline.tasks import Task


def main(config: Config) -> list[Task]:
    return [sweep_task(config)]


if __name__ == "__main__":
    run_application(main, "train")
