"""Train the selected run of a cell once more, keeping checkpoints; its sweep must be finished.

python scripts/retrain.py model=mlp n_per_class=51
"""

from repro.pipeline.composition import run_application
from repro.pipeline.config import Config
from repro.pipeline.experiment import retrain_task
from repro.pipeline.tasks import Task


def main(config: Config) -> list[Task]:
    return [retrain_task(config)]


if __name__ == "__main__":
    run_application(main, "train")
