"""Operations against formulas, cuts, and seconds as the sum of their parts."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

import pytest
import torch
from cells import small
from hypothesis import given
from hypothesis import strategies as st
from networks import architecture

from repro.models import Architecture
from repro.pipeline import calibration
from repro.pipeline.cost import Throughput, cut, measurement_petaflop, of_finished, products, training_petaflop
from repro.pipeline.trained import build
from repro.pipeline.trainings import Trainings


def mlp_flop(widths):
    """Two operations per weight of a linear layer."""
    return 2 * sum(a * b for a, b in itertools.pairwise(widths))


def test_operations_of_a_perceptron_are_those_of_its_matrices():
    of = small(settings={"width": 0.05, "layers": 4})
    assert of.network_size.flop == mlp_flop([1024, 102, 102, 102, 10])


def test_operations_of_the_papers_networks():
    """By hand: 2 x 9 x in x out x height x width per 3x3 convolution."""
    sides, plan = (32, 16, 8, 8, 4, 4, 2, 2), (1, 64, 128, 256, 256, 512, 512, 512, 512)
    convolutions = sum(18 * a * b * side**2 for a, b, side in zip(plan, plan[1:], sides))
    of = small(model="vgg11", settings={"width": 1.0})
    assert of.network_size.flop == convolutions + mlp_flop([512, 4096, 4096, 10])


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
    assert own.network_size.flop == mlp_flop([1024, 10])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_training_costs_three_passes_of_each_example_in_each_epoch():
    of = small(4, epochs=5)
    assert training_petaflop(of) == pytest.approx(3 * of.network_size.flop * 40 * 5 / 1e15)


def test_measurements_cost_by_their_products():
    settings = [{"steps": 20, "probes": 2}, {"max_products": 40}, {"steps": None}, {}]
    assert [products(each, 10, classes=10) for each in settings] == [40, 40, 20, 20]
    assert products({}, 48, classes=10) == 48
    few, many = (measurement_petaflop(small(), {"steps": steps}, 10) for steps in (10, 30))
    assert many == pytest.approx(3 * few)


@given(st.integers(1, 100), st.integers(1, 40), st.floats(0.1, 30))
def test_a_cut_covers_every_rate_once_within_its_limits(count, rates, multiple):
    of = small()
    parts = cut(of, range(count), rates=rates, petaflop=multiple * training_petaflop(of))
    assert [index for part in parts for index in part] == list(range(count))
    assert all(1 <= len(part) <= max(1, min(rates, int(multiple * 1.000001))) for part in parts)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_without_a_limit_of_work_nothing_is_counted(monkeypatch):
    monkeypatch.setattr(Trainings, "network_size", property(lambda of: pytest.fail("counted")))
    assert cut(small(), [3, 5, 8], rates=2, petaflop=None) == [(3, 5), (8,)]


SPEED = Throughput(step_seconds=1.0, example_seconds=0.1, evaluation_seconds=0.01)


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

    monkeypatch.setattr(calibration, "ENGINES", {"sequential": Runs, "stacked": Runs})
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    for engine in ("sequential", "stacked"):
        of = replace(small(), engine=engine)
        found = calibration.calibrate(of, lambda of=of: build(of), "cpu", rates=3, seconds=1.0)
        assert found[:3] == pytest.approx((2.0, 0.5, 0.25))


def test_a_checkpoint_holds_weights_and_statistics():
    parameters = sum(p.numel() for p in build(small()).parameters())
    buffers = 7 * (2 * 41 * 4 + 8)  # of batch norm: mean, variance, counter
    assert small().network_size.weight_bytes == 4 * parameters + buffers


def test_finished_trainings_tell_the_seconds_of_a_step_and_of_an_example():
    """Of sizes that take different numbers of steps an example; evaluating costs a third of training on as many."""
    speed = Throughput(step_seconds=0.02, example_seconds=0.006, evaluation_seconds=0.002)
    cells = [small(n, epochs=epochs) for n, epochs in ((1, 30), (4, 5), (9, 20))]
    found = of_finished([(of, speed.training_seconds(of)) for of in cells])
    assert found == pytest.approx(speed)


def test_trainings_of_one_size_are_predicted_as_they_were():
    found = of_finished([(small(4), 12.0)])
    assert found.step_seconds == 0
    assert found.training_seconds(small(4)) == pytest.approx(12)


def test_operations_do_not_depend_on_how_a_network_is_called():
    renamed = replace(small(), model=replace(architecture("mlp", width=0.02), name="x"))
    assert small().network_size == renamed.network_size
