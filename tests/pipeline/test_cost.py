"""Operations against formulas, cuts, and seconds as the sum of their parts."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from cells import small
from hypothesis import given
from hypothesis import strategies as st
from networks import architecture

from repro.models import Architecture
from repro.pipeline import cost
from repro.pipeline.cost import Throughput, cut, forward_flop, training_petaflop
from repro.pipeline.trained import build


def mlp_flop(widths):
    """Two operations per weight of a linear layer."""
    return 2 * sum(a * b for a, b in itertools.pairwise(widths))


def test_operations_of_a_perceptron_are_those_of_its_matrices():
    of = small(settings={"width": 0.05, "layers": 4})
    assert forward_flop(of) == mlp_flop([1024, 102, 102, 102, 10])


def test_operations_of_the_papers_networks():
    """By hand: 2 x 9 x in x out x height x width per 3x3 convolution."""
    sides, plan = (32, 16, 8, 8, 4, 4, 2, 2), (1, 64, 128, 256, 256, 512, 512, 512, 512)
    convolutions = sum(18 * a * b * side**2 for a, b, side in zip(plan, plan[1:], sides))
    of = small(model="vgg11", settings={"width": 1.0})
    assert forward_flop(of) == convolutions + mlp_flop([512, 4096, 4096, 10])


def test_a_users_network_that_looks_at_its_numbers_is_counted_too(tmp_path, monkeypatch):
    (tmp_path / "looking.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, channels, classes):\n"
        "        super().__init__()\n"
        "        self.layer = nn.Linear(channels * 1024, classes)\n"
        "    def forward(self, x):\n"
        "        return self.layer(x.flatten(1)) * float(x.abs().max() + 1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    before = torch.random.get_rng_state()
    own = replace(small(), model=Architecture.from_keys({"build": "looking:Net"}))
    assert forward_flop(own) == mlp_flop([1024, 10])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_training_costs_three_passes_of_each_example_in_each_epoch():
    of = small(4, epochs=5)
    assert training_petaflop(of) == pytest.approx(3 * forward_flop(of) * 40 * 5 / 1e15)


def test_measurements_cost_by_their_products():
    settings = [SimpleNamespace(steps=20, probes=2), SimpleNamespace(max_products=40), SimpleNamespace(steps=None)]
    assert [cost.products(each, classes=10) for each in settings] == [40, 40, 20]
    of = small()
    few, many = (cost.measurement_petaflop(of, SimpleNamespace(steps=steps)) for steps in (10, 30))
    assert many == pytest.approx(3 * few)


@given(st.integers(1, 100), st.integers(1, 40), st.floats(0.1, 30))
def test_a_cut_covers_every_rate_once_within_its_limits(count, rates, multiple):
    of = small()
    parts = cut(of, range(count), rates=rates, petaflop=multiple * training_petaflop(of))
    assert [index for part in parts for index in part] == list(range(count))
    assert all(1 <= len(part) <= max(1, min(rates, int(multiple * 1.000001))) for part in parts)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_without_a_limit_of_work_nothing_is_counted(monkeypatch):
    monkeypatch.setattr(cost, "forward_flop", lambda of: pytest.fail("counted"))
    assert cut(small(), [3, 5, 8], rates=2, petaflop=None) == [(3, 5), (8,)]


SPEED = Throughput(step_seconds=1.0, example_seconds=0.1, evaluation_seconds=0.01, weight_bytes=1000)


@pytest.mark.parametrize(
    ("last_batch", "epoch"),
    [("keep", 2 * 1.0 + 40 * 0.1), ("drop", 1.0 + 32 * 0.1), ("join", 1.0 + 40 * 0.1)],
)  # fmt: skip
def test_a_training_is_the_sum_of_its_steps_and_evaluations(last_batch, epoch):
    of = small(4, epochs=10, last_batch=last_batch)  # 40 examples, 1000 to test on
    assert SPEED.training_seconds(of) == pytest.approx(10 * epoch + 1040 * 0.01)


def test_calibration_finds_the_seconds_of_a_step_and_of_an_example(monkeypatch):
    """A clock that only training moves: 2 s a step and 0.5 s an example of each network, 0.25 s an evaluated one."""
    clock = [0.0]

    class Runs:
        def __init__(self, initial, recipe, indices):
            self.indices = indices

        def start_epoch(self, rates):
            pass

        def step(self, x, y):
            clock[0] += len(self.indices) * (2 + 0.5 * len(x))

        def finite(self):
            return []

        def evaluate(self, batches):
            clock[0] += len(self.indices) * 0.25 * sum(len(x) for x, _ in batches)

    monkeypatch.setattr(cost, "ENGINES", {"sequential": Runs, "stacked": Runs})
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    for engine in ("sequential", "stacked"):
        of = replace(small(), engine=engine)
        found = cost.calibrate(of, lambda of=of: build(of), "cpu", rates=3, seconds=1.0)
        assert found[:3] == pytest.approx((2.0, 0.5, 0.25))
        parameters = sum(p.numel() for p in build(of).parameters())
        buffers = 7 * (2 * 41 * 4 + 8)  # of batch norm: mean, variance, counter
        assert found.weight_bytes == 4 * parameters + buffers


def test_operations_do_not_depend_on_how_a_network_is_called():
    assert forward_flop(small()) == forward_flop(
        replace(small(), model=replace(architecture("mlp", width=0.02), name="x"))
    )
