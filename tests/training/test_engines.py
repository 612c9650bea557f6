"""Stacks are cut to fit and the faster engine is taken."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from repro.training import engines
from repro.training.recipe import Recipe

RECIPE = Recipe(
    epochs=2, batch_size=4, momentum=0.9, weight_decay=0.0, milestones=[], factor=0.1, evaluate="last",
    precision="fp32", seed=0,
)  # fmt: skip
BATCH = torch.randn(4, 6), torch.zeros(4, dtype=torch.long)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))


@pytest.mark.parametrize(
    ("count", "size", "expected"), [(5, 2, [1, 2, 2]), (4, 4, [4]), (3, 1, [1, 1, 1]), (25, 13, [12, 13])]
)
def test_groups_are_even_and_complete(count: int, size: int, expected: list[int]) -> None:
    cut = engines.groups(range(count), size)
    assert sorted(map(len, cut)) == expected
    assert [index for group in cut for index in group] == list(range(count))


def test_memory_counts_weights_and_activations() -> None:
    weights = 4 * (6 * 5 + 5 + 10 + 5 * 3 + 3)
    small, large = (engines.training_bytes(network(), (torch.randn(b, 6), BATCH[1][:1].expand(b))) for b in (4, 400))
    assert small > 4 * weights
    activations = 4 * (6 + 5 + 5 + 3)  # x, the first layer's output, batch norm's, log-softmax, in float32
    assert large - small == pytest.approx(396 * activations, rel=0.5)
    assert engines.stack_size(network(), BATCH, 10 * small) == 10


def test_measuring_memory_leaves_the_network_alone() -> None:
    initial = network()
    before = {name: tensor.clone() for name, tensor in initial.state_dict().items()}
    engines.training_bytes(initial, BATCH)
    assert all(torch.equal(before[name], tensor) for name, tensor in initial.state_dict().items())


@pytest.mark.parametrize(("alone", "stacked", "engine"), [(1.0, 0.5, "stacked"), (1.0, 2.0, "sequential")])
def test_auto_takes_the_faster(alone: float, stacked: float, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(runs: engines.SingleRun | engines.StackedRuns, batch: object) -> float:
        return alone if isinstance(runs, engines.SingleRun) else stacked * len(runs.indices)

    monkeypatch.setattr(engines, "step_seconds", seconds)
    chosen = engines.choose_engine("auto", network(), BATCH, RECIPE, 20, memory=1 << 20)
    assert chosen[0] == engine
    assert engines.choose_engine("auto", network(), BATCH, RECIPE, 1, memory=None) == ("sequential", 1)
