"""A data set and a network are added as docs/how-to/add.md says: two files each, none of ours touched."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from repro.storage.results import load_result
from repro.storage.runs import read_table

ROOT = Path(__file__).resolve().parent.parent

READER = '''
import numpy as np

def read(root, *, train, download):
    """Twelve bright squares in three places for training, and six to test on."""
    rng = np.random.default_rng(0 if train else 1)
    labels = np.arange(12 if train else 6) % 3
    images = rng.integers(0, 60, (len(labels), 2, 12, 12), dtype=np.uint8)
    for image, label in zip(images, labels):
        image[:, 4 * label : 4 * label + 4] += 190
    return images, labels
'''
DATA = """
name: squares
title: Squares
reader: users_squares:read
classes: 3
channels: 2
side: 14
pad: 1
mean: [0.5, 0.5]
std: [0.5, 0.5]
subset_seed: 0
examples_per_class: 4
largest_size: 5000
test_examples: 6
paper_epochs: 9
"""
NETWORK = """
from torch import nn

def shallow(channels, side, classes, hidden):
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(channels * side**2, hidden), nn.BatchNorm1d(hidden), nn.ReLU(),
        nn.Linear(hidden, classes),
    )
"""
MODEL = """
name: shallow
title: Shallow network
build: users_network:shallow
hidden: 7
"""


@pytest.fixture
def added(tmp_path):
    """A folder of a user with the four files; what it adds to a command line."""
    files = {"users_squares.py": READER, "users_network.py": NETWORK, "conf/data/squares.yaml": DATA,
             "conf/model/shallow.yaml": MODEL}  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path, [f"hydra.searchpath=[file://{tmp_path}/conf]"]


def reproduce(folder, *words):
    line = [sys.executable, "scripts/reproduce.py", *words, "experiment=smoke", f"outputs={folder}/outputs"]
    paths = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr


def test_a_data_set_and_a_network_of_a_user(added):
    folder, found_there = added
    cell = ["data=squares", "model=shallow", "n_per_class=2,4", "model.hidden=5"]
    figures = ["figures.3.n_per_class=[4]", "measurements.hessian_spectrum.steps=8"]
    reproduce(folder, "all", *cell, *figures, *found_there)
    root = folder / "outputs" / "smoke"
    table = read_table(root / "runs.csv")
    assert len(table) == 6
    assert set(table.data_title) == {"Squares"}
    assert set(table.model_title) == {"Shallow network"}
    result = load_result(root / "results/squares/shallow/n4/hessian_spectrum.npz", None)
    assert int(result.arrays["train_hessian_dim"]) == 2 * 14 * 14 * 5 + 5 + 2 * 5 + 5 * 3 + 3
    assert np.isfinite(result.arrays["test_hessian_nodes"]).all()
    assert (root / "figures" / "fig03.png").exists()
    assert "Squares" in (root / "report" / "index.html").read_text()
