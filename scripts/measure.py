"""Compute one measurement of one retrained network, or of your own weights; what is finished is skipped.

python scripts/measure.py measurement=hessian_spectrum model=vgg11 n_per_class=51
python scripts/measure.py -m measurement=layer_features model=vgg11 n_per_class=10,26,51
python scripts/measure.py measurement=hessian_spectrum weights=mine.safetensors model=my_module:build data=mnist
"""

import os
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from repro.pipeline import tasks
from repro.pipeline.experiment import measure_task, own_weights


@hydra.main(version_base="1.3", config_path="../conf", config_name="measure")
def main(cfg: DictConfig) -> None:
    if cfg.weights and ":" in cfg.model.name:  # only now: Hydra runs any hydra_plugins that it finds where Python looks
        sys.path.append(os.getcwd())
    try:
        tasks.run(measure_task(cfg, HydraConfig.get().overrides.task))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    sys.argv[1:] = own_weights(sys.argv[1:])
    main()
