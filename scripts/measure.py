"""Compute one measurement of one retrained network; what is finished is skipped.

python scripts/measure.py measurement=hessian_spectrum model=vgg11 n_per_class=136
python scripts/measure.py -m measurement=layer_features model=mlp n_per_class=10,37,136
"""

import hydra
from omegaconf import DictConfig

from repro import tasks
from repro.experiment import measure_task


@hydra.main(version_base="1.3", config_path="../conf", config_name="measure")
def main(cfg: DictConfig) -> None:
    tasks.run(measure_task(cfg))


if __name__ == "__main__":
    main()
