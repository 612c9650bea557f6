"""Compute one measurement of one retrained network; what is finished is skipped.

python scripts/measure.py measurement=hessian_spectrum model=vgg11 n_per_class=136
python scripts/measure.py -m measurement=layer_features model=mlp n_per_class=10,37,136
"""

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from repro import tasks
from repro.experiment import measure_task


@hydra.main(version_base="1.3", config_path="../conf", config_name="measure")
def main(cfg: DictConfig) -> None:
    tasks.run(measure_task(cfg, HydraConfig.get().overrides.task))


if __name__ == "__main__":
    main()
