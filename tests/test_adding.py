"""What docs/how-to/add.md says: a data set and a network are two files each, a measurement with its figure three."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import preloaded
import pytest

from repro.storage.results import load_result
from repro.storage.runs import read_table

ROOT = Path(__file__).resolve().parent.parent

READER = '''
import numpy as np
import pandas as pd

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

MEASUREMENT = '''
"""The length of each class's mean image (a measurement of a user)."""

from dataclasses import dataclass

import torch

VERSION = 1


@dataclass
class Settings:
    """What is measured."""

    power: float = 1.0  # of the length (ours)


def measure(network, settings):
    """Returns lengths [C]."""
    x, y = network.train.inputs.flatten(1), network.train.labels
    means = torch.stack([x[y == c].mean(dim=0) for c in range(network.classes)])
    return {"lengths": means.norm(dim=1).pow(settings.power).numpy()}
'''
FIGURE = '''
"""Figure 99: lengths of the mean images (Section 0)."""

from repro.figures.style import COLORS, subplots

MEASUREMENTS = ("image_lengths",)


def draw(results):
    found = results.of("image_lengths")
    figure, axes = subplots(1, len(found))
    for ax, result in zip(axes.flat, found):
        ax.plot(result.arrays["lengths"], ".", color=COLORS["hessian"])
        ax.set_title(result.title)
    return figure


def caption(results):
    return f"The length of each class's mean image. {results.where('image_lengths')}"
'''


@pytest.fixture
def added(tmp_path):
    """A folder of a user with the four files; what it adds to a command line."""
    files = {"users_squares.py": READER, "users_network.py": NETWORK, "conf/data/squares.yaml": DATA,
             "conf/model/shallow.yaml": MODEL}  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path, [f"hydra.searchpath=[file://{tmp_path}/conf]"]


def reproduce(folder, *words, code=ROOT):
    overrides = ["experiment=smoke", f"outputs={folder}/outputs", "launch.workers=1"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        done = preloaded.run(code / "scripts/reproduce.py", *words, *overrides, cwd=code)
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


def test_a_measurement_with_its_figure(tmp_path):
    """In a copy of the project: two new files, and a line in the experiment."""
    for part in ("repro", "conf", "scripts"):
        ignored = shutil.ignore_patterns("__pycache__", "site")
        shutil.copytree(ROOT / part, tmp_path / part, ignore=ignored, symlinks=True)
    (tmp_path / "repro/measurements/image_lengths.py").write_text(MEASUREMENT)
    (tmp_path / "repro/figures/fig99_image_lengths.py").write_text(FIGURE)
    experiment = tmp_path / "conf/experiment/smoke.yaml"
    experiment.write_text(experiment.read_text() + '\n  "99": {n_per_class: [6]}\n')
    reproduce(tmp_path, "fig99", "measurements.image_lengths.power=2", code=tmp_path)
    root = tmp_path / "outputs" / "smoke"
    (path,) = root.glob("results/*/*/n6/image_lengths.npz")
    lengths = load_result(path, None).arrays["lengths"]
    assert lengths.shape == (10,)
    drawn = pd.read_csv(root / "figures" / "fig99.csv")
    assert any(np.allclose(drawn[column].dropna(), lengths, rtol=1e-5) for column in drawn.select_dtypes("number"))
    reproduce(tmp_path, "report", "measurements.image_lengths.power=2", code=tmp_path)
    assert "mean image" in (root / "report" / "index.html").read_text()
