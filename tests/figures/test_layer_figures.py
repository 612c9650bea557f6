"""Figures 7-14 drawn from small stored results: what is where, not how it looks."""

from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from repro.figures import find_figure
from repro.figures.results import Results
from repro.measurements import kronecker_factors, layer_errors, layer_features, logistic_regression, weights
from repro.network import Network
from repro.storage.results import Cell, Result

C, LAYERS = 3, 6
CELLS = [Cell(data, "mlp", 10) for data in ("mnist", "cifar10")]
MEASURED = {"7": "layer_features", "8": "layer_features", "9": "layer_errors", "10": "layer_errors",
            "11": "kronecker_factors", "12": "kronecker_factors", "13": "weights"}  # fmt: skip


def titles(cell):
    return {"data_title": cell.data.upper(), "model_title": cell.model.upper()} if cell else {}


@pytest.fixture(scope="module")
def measured():
    """Each measurement on an untrained network of six layers."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hidden = [part for _ in range(LAYERS - 1) for part in (nn.Linear(9, 9), nn.ReLU())]
        model = nn.Sequential(*hidden, nn.Linear(9, C)).double().eval()
        data = [(torch.randn(30, 9, dtype=torch.float64), torch.arange(30) % C)]
    run = Network(model, data, weight_decay=5e-4)
    kronecker = kronecker_factors.Settings(steps=20, exact_limit=50)
    section8 = logistic_regression.Settings(classes=3, features=4, examples=300, snrs=[1.0, 2.0, 9.0])
    found = {
        "layer_features": (layer_features.measure(run, layer_features.Settings()), {}),
        "layer_errors": (layer_errors.measure(run, layer_errors.Settings()), {}),
        "kronecker_factors": (kronecker_factors.measure(run, kronecker), asdict(kronecker)),
        "weights": (weights.measure(run, weights.Settings()), {}),
        "logistic_regression": (logistic_regression.measure(section8), asdict(section8)),
    }
    cells = {name: [None] if name == "logistic_regression" else CELLS for name in found}
    return {
        name: [Result(cell, arrays, {"measurement": used, "epochs": [0, 40], **titles(cell)}) for cell in cells[name]]
        for name, (arrays, used) in found.items()
    }


@pytest.fixture(scope="module")
def results(measured):
    return Results("tiny", measured, pd.DataFrame(), pd.DataFrame())


def panels(figure):
    return [ax for ax in figure.axes if ax.axison]


@pytest.mark.parametrize(
    ("number", "expected"),
    [("7", LAYERS + 1), ("8", 3), ("9", LAYERS), ("10", 3), ("11", LAYERS), ("12", LAYERS), ("13", 2)],
)
def test_every_cell_has_its_panels(results, number, expected):
    assert len(panels(find_figure(number).draw(results))) == expected * len(CELLS)


@pytest.mark.parametrize("number", [*MEASURED, "14"])
def test_every_panel_shows_something(results, number):
    for ax in panels(find_figure(number).draw(results)):
        assert any(np.isfinite(np.asarray(line.get_ydata(), dtype=float)).any() for line in ax.lines)


def test_feature_histograms_count_all_and_stems_stand_at_the_class_means(results):
    figure = find_figure("7").draw(results)
    arrays = results.of("layer_features")[0].arrays
    for l, ax in enumerate(panels(figure)[:LAYERS]):
        counted = next(line for line in ax.lines if line.get_label() == "H").get_ydata()
        values = arrays[f"layer{l}_eigenvalues"]
        assert np.nansum(counted) == (values > 1e-8 * values.max()).sum()
        (stems,) = [line for line in ax.lines if line.get_label() == "H$_{class}$"]
        expected = arrays[f"layer{l}_class"]
        np.testing.assert_allclose(np.sort(stems.get_xdata()), np.sort(expected[expected > ax.get_xlim()[0]]))


def test_the_ratio_by_depth_leaves_the_logits_out(results):
    ratio = panels(find_figure("8").draw(results))[1].lines[0].get_ydata()
    np.testing.assert_allclose(ratio, results.of("layer_features")[0].arrays["class_ratio"][:-1])
    assert np.isfinite(ratio).all()


@pytest.mark.parametrize(("number", "names"), [("11", ["G", "KFAC", "EKFAC"]), ("12", ["G", "KFAC", "CFAC"])])
def test_approximations_and_their_distances(results, number, names):
    ax = panels(find_figure(number).draw(results))[0]
    assert [line.get_label() for line in ax.lines] == names
    kfac, cfac, ekfac = results.of("kronecker_factors")[0].arrays["wasserstein"][0]
    distance = {"KFAC": kfac, "CFAC": cfac, "EKFAC": ekfac}
    assert ax.texts[0].get_text() == "\n".join(f"{name} {distance[name]:.2f}" for name in names[1:])


def test_a_cell_with_more_layers_gets_more_rows(measured):
    """Networks of different depth may share a figure."""
    deep = measured["layer_errors"][0]
    shallow = {key: values for key, values in deep.arrays.items() if not key.startswith(("layer4", "layer5"))}
    mixed = [deep, Result(CELLS[1], {**shallow, "layers": deep.arrays["layers"][:4]}, deep.provenance)]
    figure = find_figure("9").draw(Results("tiny", {"layer_errors": mixed}, pd.DataFrame(), pd.DataFrame()))
    assert len(panels(figure)) == LAYERS + 4


@pytest.mark.parametrize("number", MEASURED)
def test_captions_say_what_is_needed(results, number):
    caption = find_figure(number).caption(results)
    for part in ("MNIST", "MLP", "10 examples per class", "epoch 40", "Experiment: tiny"):
        assert part in caption
    for judgement in ("certain", "our reading", "(ours)", "guess"):  # these stand apart from what is seen
        assert judgement not in caption
    assert find_figure(number).known


def test_what_is_guessed_of_section_8_is_said(results):
    assert "guess" in find_figure("14").known
    assert "Experiment: tiny" in find_figure("14").caption(results)
