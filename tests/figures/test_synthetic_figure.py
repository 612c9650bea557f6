"""Figure 15 drawn from a small synthetic check: both panels show the exact eigenvalues and the estimate."""

import numpy as np
import pandas as pd
import pytest

from repro.figures import find_figure
from repro.figures.results import Results
from repro.measurements import synthetic_spectra
from repro.storage.results import Result

SETTINGS = {
    "spikes": [5.0, 4.0, 3.0], "spiked_dim": 200, "spiked_steps": 60, "heavy_dim": 60, "heavy_samples": 120,
    "heavy_steps": 60, "epsilon": 1e-5, "probes": 2, "seed": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def results():
    result = Result(None, synthetic_spectra.measure(synthetic_spectra.Settings(**SETTINGS)), {"measurement": SETTINGS})
    return Results("tiny", {"synthetic_spectra": [result]}, pd.DataFrame(), pd.DataFrame())


def test_the_estimate_lies_on_the_histogram(results):
    figure = find_figure(15).draw(results)
    spiked, heavy = figure.axes
    assert (spiked.get_xscale(), heavy.get_xscale()) == ("linear", "log")
    for ax in (spiked, heavy):
        assert np.isfinite(ax.lines[0].get_ydata()).sum() > 20
    counts, edges, _ = spiked.patches[0].get_data()
    middle = (edges[1:] + edges[:-1]) / 2
    bulk = (middle > 1) & (middle < 3)  # it ends at 4
    estimate = np.interp(middle[bulk], *spiked.lines[0].get_data())
    assert estimate.mean() == pytest.approx(counts[bulk].mean(), rel=0.2)
    assert [text.get_text() for text in spiked.get_legend().get_texts()] == ["exact, histogram", "Lanczos estimate"]


def test_the_caption_has_the_numbers_of_the_measurement(results):
    caption = find_figure(15).caption(results)
    exact = results.of("synthetic_spectra")[0].arrays["spiked_exact"]
    assert f"200 eigenvalues, the largest at {exact[-1]:.2f}, {exact[-2]:.2f}, {exact[-3]:.2f}" in caption
    assert "M = 60, ε = 1e-05" in caption
