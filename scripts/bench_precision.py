"""What engine, precision and seed change in the outcome of a sweep: selected learning rate and its test error.

    python scripts/bench_precision.py                                  # embedded experiment, n = 10; minutes on a core
    python scripts/bench_precision.py experiment=embedded model=mlp n_per_class=136

The spread over seeds is the yardstick for the other differences. Writes docs/benchmarks/precision.csv.
"""

from __future__ import annotations

import datetime
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from repro.pipeline.devices import find_device
from repro.pipeline.experiment import Experiment
from repro.pipeline.trained import build, load_splits
from repro.pipeline.trainings import Trainings
from repro.training import train_block

VARIANTS: list[tuple[str, dict[str, Any]]] = [  # engine, changes of the recipe
    ("sequential", {}),
    ("stacked", {}),
    ("sequential", {"precision": "tf32"}),
    ("sequential", {"precision": "bf16"}),
    ("sequential", {"seed": 1}),
    ("sequential", {"seed": 2}),
]


def outcome(of: Trainings, engine: str, changes: dict[str, Any], experiment: Experiment) -> dict[str, Any]:
    """Train all rates of a cell and select among them as the pipeline does: lowest test error, then test loss."""
    recipe = replace(of.recipe, **changes)
    train, test = load_splits(of, experiment.config.machine, find_device(experiment.config.device))
    rates = [of.rates.rate(index) for index in range(of.rates.count)]
    histories = train_block(lambda: build(of), train, test, rates, recipe, engine=engine)
    finite = [history for history in histories if not history.diverged]
    best = min(finite, key=lambda history: (history.test_error[-1], history.test_loss[-1]))
    return {
        "engine": engine,
        "precision": recipe.precision,
        "seed": recipe.seed,
        "selected_rate": f"{best.learning_rate:.4g}",
        "test_error": round(best.test_error[-1], 4),
        "test_loss": best.test_loss[-1],
        "diverged": len(histories) - len(finite),
        "seconds_a_training": round(sum(history.seconds for history in histories) / len(histories), 2),
    }


def main() -> None:
    torch.set_num_threads(1)
    table = []
    experiment = Experiment(sys.argv[1:] or ["experiment=embedded", "n_per_class=10"])
    for cell, of in experiment.cells().items():
        for engine, changes in VARIANTS:
            table.append({**cell._asdict(), **outcome(of, engine, changes, experiment)})
            print(table[-1], flush=True)
    where = {
        "device": find_device(experiment.config.device),
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
    }
    path = Path("docs/benchmarks/precision.csv")
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(table).assign(**where).to_csv(path, index=False)


if __name__ == "__main__":
    main()
