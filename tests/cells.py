"""A small cell of the grid, and its trainings' files without the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from networks import architecture

from repro.data import DataSet
from repro.pipeline.grid import LearningRates
from repro.pipeline.trainings import Trainings
from repro.storage import runs
from repro.training import Recipe

CONF = Path(__file__).parent.parent / "conf"


def small(
    n_per_class: int = 4, *, model: str = "mlp", settings: dict[str, Any] | None = None, **recipe: Any
) -> Trainings:
    """Three learning rates of a tiny network on the embedded data, for two epochs."""
    data = DataSet(**yaml.safe_load((CONF / "data" / "fashion_mnist_embedded.yaml").read_text()))
    values = {
        "epochs": 2, "batch_size": 32, "momentum": 0.9, "weight_decay": 5e-4, "milestones": [0.5], "factor": 0.1,
        "evaluate": "last", "precision": "fp32", "last_batch": "keep", "seed": 0,
    }  # fmt: skip
    return Trainings(
        data=data,
        model=architecture(model, **({"width": 0.02} | (settings or {}))),
        n_per_class=n_per_class,
        recipe=Recipe(**values | recipe),
        rates=LearningRates(0.25, 0.01, 3),
        engine="sequential",
        stack_bytes=1e9,
    )


def store_outcomes(root: Path, trainings: Trainings, outcomes: dict[int, float | None]) -> None:
    """Files as the sweep leaves them, with test errors by the index of the rate; None is a diverged training."""
    for index, error in outcomes.items():
        metrics = {
            "diverged": error is None, "train_loss": 0.1, "train_error": 0.0,
            "test_loss": None if error is None else 0.5, "test_error": 0.9 if error is None else error,
        }  # fmt: skip
        made = {"seconds": 3.0, "device": "cpu", **trainings.titles}
        path = runs.run_path(root, trainings.cell, index)
        runs.write_run(path, trainings.identity(index), {"metrics": metrics, "history": {}}, made)
