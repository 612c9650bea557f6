"""The command of the installed package, in any folder; all others are those of a checkout (`make help`).

python -m repro measure measurement=hessian_spectrum weights=mine.safetensors model=my_module:build data=mnist
python -m repro measure measurement=hessian_spectrum model=vgg11 n_per_class=51 measurements.hessian_spectrum.steps=64
python -m repro measure -m measurement=layer_features model=vgg11 n_per_class=10,26,51
"""

import os
import sys

from repro.pipeline.composition import run_application
from repro.pipeline.config import Config
from repro.pipeline.experiment import measure_tasks
from repro.pipeline.tasks import Task


def measure(config: Config) -> list[Task]:
    """Compute one measurement of one retrained network, or of your own weights; what is finished is skipped."""
    sys.path.append(os.getcwd())  # where my_module is
    return measure_tasks(config)


if __name__ == "__main__":
    if sys.argv[1:2] != ["measure"]:
        sys.exit(f"usage:\n{__doc__}")
    del sys.argv[1]
    # The working directory may be anyone's, and Hydra runs any hydra_plugins where Python looks.
    sys.path[:] = [path for path in sys.path if os.path.realpath(path) != os.getcwd()]
    run_application(measure, "measure")
