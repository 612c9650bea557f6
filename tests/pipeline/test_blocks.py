"""The cut of a cell's learning rates into tasks, and the work it goes by."""

import pytest
import torch
from repro.pipeline.blocks import GIGAFLOP, cut, training_petaflop
from torch.utils.flop_counter import FlopCounterMode

from repro import models


def config(n=100, rates=10, model="vgg11", width=1.0):
    return {
        "model": {"name": model, "width": width},
        "data": {"classes": 10},
        "n_per_class": n,
        "training": {"epochs": 200},
        "lr_indices": list(range(rates)),
    }


@pytest.mark.parametrize("name", sorted(models.MODELS))
def test_the_work_of_an_image_is_what_pytorch_counts(name):
    settings = {"layers": 8, "bias": False} if name == "mlp" else {}
    network = models.build(name, channels=3, classes=10, width=1.0, **settings).to("meta").eval()
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, 32, 32, device="meta"))
    assert GIGAFLOP[name] == pytest.approx(counter.get_total_flops() / 1e9, rel=0.01)


def test_work_of_a_training():
    assert training_petaflop(config()) == pytest.approx(3 * 0.343e9 * 1000 * 200 / 1e15)
    assert training_petaflop(config(width=0.5)) == pytest.approx(training_petaflop(config()) / 4)
    assert training_petaflop(config(model="mine", width=64)) == training_petaflop(config())


@pytest.mark.parametrize(
    ("trainings", "rates", "lengths"),
    [
        (3.5, 100, [3, 3, 2, 2]),  # the work of three, as evenly as that allows
        (3.5, 2, [2] * 5),  # the other limit
        (0.1, 100, [1] * 10),  # at least one
        (50, 100, [10]),
        (None, 4, [4, 3, 3]),
    ],
)
def test_tasks_are_even_complete_and_within_the_limits(trainings, rates, lengths):
    cell = config()
    parts = cut(cell, rates=rates, petaflop=trainings and trainings * training_petaflop(cell))
    assert [len(part) for part in parts] == lengths
    assert [index for part in parts for index in part] == cell["lr_indices"]


@pytest.mark.parametrize("limits", [{"rates": 0, "petaflop": None}, {"rates": 1, "petaflop": 0}])
def test_limits_that_admit_nothing_are_refused(limits):
    with pytest.raises(ValueError, match="must be at least 1 and"):
        cut(config(), **limits)
