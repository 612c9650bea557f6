"""A small experiment on disk: two cells with spectra of prescribed matrices, and their table of runs."""

import numpy as np
import pandas as pd
import pytest
import torch

from repro.linalg.operator import Dense
from repro.linalg.spectrum import spectrum
from repro.storage.results import Cell, result_path, save_result
from repro.storage.runs import write_table

CELLS = [Cell("fashion_mnist_embedded", model, n) for model, n in (("vgg11", 10), ("mlp", 136))]
SPECTRA = ("train_hessian", "test_hessian", "train_gauss_newton", "train_residual")
PROVENANCE = {
    "measurement": {"steps": 30, "probes": 1}, "epochs": [0, 3], "model": {"width": 0.125}, "digest": "0123",
    "code": "abc1234", "python": "3.11", "torch": "2.12", "device": "x86_64 CPU", "seconds": 1.5,
    "data_title": "Fashion-MNIST", "model_title": "a network",
}  # fmt: skip


def matrix(seed, outliers):
    """Diagonal: outliers above a bulk on [-1, 1]."""
    bulk = np.random.default_rng(seed).uniform(-1, 1, 200)
    return Dense(torch.diag(torch.from_numpy(np.concatenate([outliers, bulk]))))


@pytest.fixture(scope="module")
def cells():
    return CELLS


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("outputs") / "tiny"
    for cell in CELLS:
        arrays = {}
        for seed, name in enumerate(SPECTRA):
            outliers = [9.0, 7.0, 5.0] if "residual" not in name else [1.1, 1.2, -1.3]
            found = spectrum(
                matrix(seed, outliers), k=3, steps=30, probes=1, tolerance=1e-3, memory_budget=10**9, seed=0
            )
            arrays |= found.arrays(name)
        save_result(result_path(root, "hessian_spectrum", cell), arrays, PROVENANCE)
    rows = [
        {**cell._asdict(), "lr_index": i, "lr": 0.1 / 3**i, "epochs": 3, "diverged": i == 0, "train_loss": 0.1,
         "train_error": 0.05, "test_loss": 0.5, "test_error": 0.9 if i == 0 else 0.2 + 0.01 * i, "seconds": 2.0,
         "device": "x86_64 CPU", "digest": f"{i}", "data_title": "Fashion-MNIST", "model_title": cell.model}
        for cell in CELLS
        for i in range(4)
    ]  # fmt: skip
    runs = pd.DataFrame(rows)
    write_table(root / "runs.csv", runs)
    write_table(root / "selected.csv", runs[runs.lr_index == 1])
    return root
