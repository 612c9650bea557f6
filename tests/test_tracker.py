"""Curvature during training: the numbers of dense matrices, and a training that is none the different."""

import copy
import logging
import random

import numpy as np
import pytest
import torch
from oracles import dense_hessian, tiny
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, IterableDataset, Sampler, SubsetRandomSampler, TensorDataset

import repro
from repro.curvature.cross_class import class_structure
from repro.tracker import spread


@pytest.fixture
def problem():
    model, x, y = tiny("mlp_bn", examples=14)
    return model.train(), x, y


def test_the_numbers_are_those_of_dense_matrices(problem):
    model, x, y = problem
    track = repro.Tracker((x, y), tolerance=1e-6, probes=20)
    track(model, 3)
    (row,) = track.frame().to_dict("records")
    H = dense_hessian(model.eval(), x, y).detach()
    values, vectors = (part.flip(-1)[..., :3] for part in torch.linalg.eigh(H))
    np.testing.assert_allclose([row[f"outlier_{i}"] for i in (1, 2, 3)], values.numpy(), rtol=1e-8)
    assert (row["epoch"], row["converged"]) == (3, 3)
    assert row["sharpness"] == row["outlier_1"]
    assert row["loss"] == pytest.approx(cross_entropy(model(x), y).item())
    assert abs(row["trace"] - float(H.trace())) < 4 * row["trace_error"]
    means = torch.linalg.qr(class_structure(model, [(x, y)]).class_means().T).Q
    assert row["class_overlap"] == pytest.approx(float((means.T @ vectors).square().sum() / 3), rel=1e-6)


def test_a_tracked_training_is_the_same_training():
    """Dropout and batch norm, one layer of it in eval mode, a frozen weight, augmentation by three generators."""

    def trained(track) -> tuple[nn.Module, list[float]]:
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        layers = [nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.BatchNorm1d(6), nn.Linear(6, 3)]
        model = nn.Sequential(*layers)
        model[3].eval()
        model[4].weight.requires_grad_(False)
        data = TensorDataset(torch.randn(20, 4), torch.arange(20) % 3)
        loader = DataLoader(data, batch_size=10, shuffle=True)
        optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.3, momentum=0.9)
        for epoch in range(2):
            for x, y in loader:
                noise = random.random() + np.random.rand()
                cross_entropy(model(x + noise), y).backward()
                before = {name: (p.grad, p.requires_grad) for name, p in model.named_parameters()}
                track(model, epoch)
                assert before == {name: (p.grad, p.requires_grad) for name, p in model.named_parameters()}
                assert [module.training for module in model.modules()] == [True, True, True, True, False, True]
                optimiser.step()
                optimiser.zero_grad()
        return model, [random.random(), np.random.rand(), float(torch.rand(()))]

    shuffled = DataLoader(TensorDataset(torch.randn(9, 4), torch.arange(9) % 3), batch_size=4, shuffle=True)
    track = repro.Tracker(shuffled)
    (plain, drawn), (tracked, drawn_after) = trained(lambda *_: None), trained(track)
    assert len(track.frame()) == 4
    assert drawn == drawn_after
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, tracked.state_dict()[name]), name


class Counting(nn.Module):
    """Counts its passes in two buffers, one changed in place and one replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(4, 3)
        self.register_buffer("in_place", torch.zeros(()))
        self.register_buffer("replaced", torch.zeros(()))

    def forward(self, x):
        self.in_place += 1
        self.replaced = self.replaced + 1
        return self.map(x)


def test_buffers_that_a_pass_changes_are_put_back():
    model, x, y = Counting(), torch.randn(6, 4), torch.arange(6) % 3
    before = dict(model.named_buffers())
    repro.Tracker((x, y))(model, 0)
    assert all(buffer is before[name] and buffer == 0 for name, buffer in model.named_buffers())


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_the_callers_modes_do_not_matter(problem, around):
    """A hook of validation is run under inference_mode, one of training may be under autocast."""
    model, x, y = problem
    plain, inside = (repro.Tracker((x, y), outliers=1) for _ in range(2))
    plain(model, 0)
    with around():
        inside(model, 0)
        inside(model, 1)
    assert (inside.frame()["sharpness"] == plain.frame()["sharpness"][0]).all()


def test_epochs_and_pictures(problem, caplog):
    model, x, y = problem
    track = repro.Tracker((x, y), every=2, outliers=1)
    with pytest.raises(ValueError, match="no epoch has been measured"):
        track.plot()
    for epoch in range(4):
        track(model, epoch)
    assert track.frame()["epoch"].tolist() == [0, 2]
    assert [len(ax.lines) for ax in track.plot().axes] == [1, 1, 1]
    size = sum(parameter.nbytes for parameter in model.parameters())
    narrow = repro.Tracker((x, y), outliers=1, memory_budget=3 * size)
    with caplog.at_level(logging.WARNING, "repro.tracker"):
        narrow(model, 0)
        narrow(model, 1)
    assert caplog.text.count("class_overlap is left out: the 3 class means take") == 1
    assert narrow.frame()["class_overlap"].isna().all()
    assert len(narrow.plot().axes) == 2


def test_another_loss(problem, caplog):
    model, x, _ = problem
    track = repro.Tracker((x, x[:, :3]), loss=nn.MSELoss(), outliers=2)
    for epoch in range(2):
        track(model, epoch)
    assert caplog.text.count("class_overlap is left out: it is of the softmax cross-entropy") == 1
    assert track.frame()["class_overlap"].isna().all()
    with torch.no_grad():
        assert track.frame()["loss"][0] == pytest.approx(nn.functional.mse_loss(model.eval()(x), x[:, :3]).item())
    assert len(track.plot().axes) == 2


def test_a_class_without_examples_adds_nothing_to_the_span(problem):
    model, x, y = problem
    track = repro.Tracker((x[y < 2], y[y < 2]))
    track(model, 0)
    assert 0 < track.frame()["class_overlap"][0] < 1


def test_a_diverged_training_goes_on(problem, caplog):
    model, x, y = problem
    track, broken = repro.Tracker((x, y)), copy.deepcopy(model)
    nn.init.constant_(broken[0].weight, torch.nan)
    with pytest.raises(ValueError, match="diverged"):  # nothing was measured yet: a mistake, and training has not begun
        track(broken, 0)
    assert all(module.training for module in broken.modules())
    for epoch, state in enumerate((model, broken, model)):
        track(state, epoch)
    assert track.frame()["sharpness"].isna().tolist() == [False, True, False]
    assert "epoch 1 is not measured: parameter '0.weight'" in caplog.text
    assert len(track.plot().axes) == 3


def test_some_of_the_data_evenly_spread():
    x, y = torch.arange(10), torch.arange(10) % 2
    data = TensorDataset(x, y)
    assert spread((x, y), 5)[0].tolist() == [0, 2, 4, 6, 8]
    assert [int(x) for x, _ in spread(data, 3)] == [0, 3, 6]
    loader = DataLoader(data, batch_size=4, shuffle=True, drop_last=True)
    assert [x.tolist() for x, _ in spread(loader, 6)] == [[0, 1, 3, 5], [6, 8]]
    assert len(spread((x, y), 100)[0]) == len(spread(data, 100)) == 10
    batches = [(x, y)]
    assert spread(batches, 3) is batches


class Endless(Sampler):
    """Batches of the examples 1 and 2, for as long as one asks."""

    def __iter__(self):
        while True:
            yield [1, 2]


def test_of_a_loader_with_a_sampler_what_that_draws():
    """As where it holds the validation data back."""
    data = TensorDataset(torch.arange(10), torch.arange(10) % 2)
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    loader = DataLoader(data, batch_size=4, sampler=SubsetRandomSampler([1, 3, 5, 7], generator=generator))
    assert sorted(torch.cat([x for x, _ in spread(loader, 10)]).tolist()) == [1, 3, 5, 7]
    assert torch.equal(generator.get_state(), before)
    assert {int(x) for x, _ in spread(DataLoader(data, batch_sampler=Endless()), 6).dataset} == {1, 2}


class Stream(IterableDataset):
    def __len__(self):
        return 3

    def __iter__(self):
        return iter([(0.0, 1), (1.0, 0), (2.0, 1)])


def test_a_stream_is_taken_whole():
    assert [x.tolist() for x, _ in spread(DataLoader(Stream(), batch_size=2), 1)] == [[0, 1], [2]]
    assert isinstance(spread(Stream(), 1), Stream)


def test_mistakes_get_a_sentence(problem):
    model, x, y = problem
    with pytest.raises(
        TypeError, match="unexpected keyword argument 'step'"
    ):  # before any training, not after an epoch
        repro.Tracker((x, y), step=3)
    track = repro.Tracker((x, y))
    for mistaken, epoch in ((model.forward, 0), (model, 0.5)):
        with pytest.raises(TypeError, match=r"a torch\.nn\.Module and a whole number are needed, not"):
            track(mistaken, epoch)


@pytest.mark.parametrize("setting", ["every", "examples", "outliers", "probes", "max_products"])
def test_settings_that_cannot_be(setting):
    with pytest.raises(ValueError, match=f"{setting} is 0; it must be at least"):
        repro.Tracker([], **{setting: 0})
    with pytest.raises(TypeError, match=f"{setting} is 'all': a whole number is needed"):
        repro.Tracker([], **{setting: "all"})
