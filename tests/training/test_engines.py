"""Stacks are cut to fit, and the engine follows from a rule."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from repro.training import engines

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


def test_measuring_memory_leaves_the_network_alone() -> None:
    initial = network()
    before = {name: tensor.clone() for name, tensor in initial.state_dict().items()}
    engines.training_bytes(initial, BATCH)
    assert all(torch.equal(before[name], tensor) for name, tensor in initial.state_dict().items())


def test_a_stack_that_is_asked_for_holds_what_fits_and_at_least_one() -> None:
    one = engines.training_bytes(network(), BATCH)
    assert engines.at_once("stacked", network(), BATCH, 20, 10 * one) == 10
    assert engines.at_once("stacked", network(), BATCH, 20, 1) == 1
    assert engines.at_once("sequential", network(), BATCH, 20, 1e12) == 1


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(ValueError, match="'fast' is unknown; choose one of sequential, stacked"):
        engines.at_once("fast", network(), BATCH, 2, 1e9)
