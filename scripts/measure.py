"""Compute one measurement of one retrained network, or of your own weights; what is finished is skipped.

python scripts/measure.py measurement=hessian_spectrum model=vgg11 n_per_class=51 measurements.hessian_spectrum.steps=64
python scripts/measure.py -m measurement=layer_features model=vgg11 n_per_class=10,26,51
python scripts/measure.py measurement=hessian_spectrum weights=mine.safetensors model=my_module:build data=mnist
"""

import os
import sys

import hydra
from omegaconf import DictConfig

from repro.pipeline import tasks
from repro.pipeline.composition import claimed_config, own_weights, run_application
from repro.pipeline.experiment import measure_tasks


@hydra.main(version_base="1.3", config_path="../conf", config_name="measure")
def main(cfg: DictConfig) -> None:
    sys.path.append(os.getcwd())  # where my_module is; only now, as Hydra runs any hydra_plugins where Python looks
    try:
        for task in measure_tasks(claimed_config(cfg)):
            tasks.run(task)
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    sys.argv[1:] = own_weights(sys.argv[1:])
    run_application(main)
