"""Alignment over epochs of a tiny network: against `alignment` at the last epoch, and against dense matrices."""

import numpy as np
import pytest
import torch
from torch import nn

from repro.curvature.cross_class import class_structure
from repro.curvature.gauss_newton import GaussNewton
from repro.measurements import alignment, alignment_dynamics
from repro.network import Network

C, D, N = 4, 6, 24
SETTINGS = {"tolerance": 1e-8, "max_products": 80}


@pytest.fixture(scope="module")
def run():
    def network(epoch):
        torch.manual_seed(epoch)
        return nn.Sequential(nn.Linear(D, 6), nn.Tanh(), nn.Linear(6, C)).double().eval()

    with torch.random.fork_rng():
        torch.manual_seed(9)
        data = [(torch.randn(N, D, dtype=torch.float64), torch.arange(N) % C)]
        checkpoints = {epoch: network(epoch) for epoch in (0, 2, 5)}
    return Network(checkpoints[5], data, checkpoints=checkpoints)


def test_the_last_epoch_is_what_alignment_finds(run):
    arrays = alignment_dynamics.measure(run, alignment_dynamics.Settings(epochs=2, **SETTINGS))
    assert arrays["epochs"].tolist() == [0, 5]
    whole = alignment.measure(run, alignment.Settings(eigenvectors=C - 1, exact_limit=0, **SETTINGS))
    for name in ("eigenvalues", "overlap_class", "share_class", "share_cross", "share_same"):
        np.testing.assert_allclose(arrays[name][-1], whole[f"gauss_newton_{name}"], rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(arrays["class_cosines"][-1], whole["gauss_newton_class_cosines"], rtol=1e-10)


def test_every_epoch_by_dense_eigenvectors(run):
    arrays = alignment_dynamics.measure(run, alignment_dynamics.Settings(**SETTINGS))
    assert arrays["converged"].all()
    for i, epoch in enumerate(run.epochs):
        model = run.at_epoch(epoch)
        values, U = (t.flip(-1)[..., : C - 1] for t in torch.linalg.eigh(GaussNewton(model, run.batches()).dense()))
        part = class_structure(model, run.batches()).class_part
        onto, _ = torch.linalg.qr(part.U)
        np.testing.assert_allclose(arrays["eigenvalues"][i], values, rtol=1e-8)
        np.testing.assert_allclose(arrays["overlap_class"][i], (onto.T @ U).square().sum(0), atol=1e-6)
        np.testing.assert_allclose(arrays["share_class"][i], ((part.dense() @ U) * U).sum(0) / values, atol=1e-6)
        np.testing.assert_allclose(arrays["class_cosines"][i], torch.linalg.svdvals(onto.T @ U), atol=1e-6)


def test_a_run_without_checkpoints_is_refused(run):
    with pytest.raises(ValueError, match="own data/Sequential/n6 has no checkpoints"):
        alignment_dynamics.measure(Network(run.model, run.batches()), alignment_dynamics.Settings(**SETTINGS))
