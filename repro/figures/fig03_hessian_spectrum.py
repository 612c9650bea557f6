"""Figure 3: spectrum of the training and test Hessian, outliers over the bulk (Section 4).

One column per cell, so that the paper's three data sets stand side by side; further networks follow below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.figures.panels import spectrum_panel
from repro.figures.results import Results
from repro.figures.style import COLORS, label_panels, subplots
from repro.spectra.broadening import KAPPA
from repro.spectra.record import Spectrum
from repro.storage.results import Result

MEASUREMENTS = ("hessian_spectrum",)
PAPER = "The smoothing κ = 3 is the paper's. That the test Hessian is over the whole test set is our reading."
COLUMNS = 3  # cells side by side


def draw(results: Results) -> Figure:
    """Two panels per cell: training Hessian above, test Hessian below."""
    return draw_spectra(results.of("hessian_spectrum"), ("train_hessian", "test_hessian"), deflated=True)


def draw_spectra(cells: Sequence[Result], spectra: Sequence[str], *, deflated: bool) -> Figure:
    """A grid of `spectra` (rows) of `cells` (columns, `COLUMNS` at most); without deflation no stems are drawn."""
    columns = min(COLUMNS, len(cells))
    bands = -(-len(cells) // columns)
    figure, axes = subplots(bands * len(spectra), columns, width=max(2.4 * columns, 3.4), row_height=1.6)
    used = []
    for index, cell in enumerate(cells):
        for row, name in enumerate(spectra):
            ax = axes[index // columns * len(spectra) + row, index % columns]
            _panel(ax, cell, name, deflated)
            ax.set_title(f"{_cell_title(cell)}\n{spectrum_title(name)}" if row == 0 else spectrum_title(name))
            used.append(ax)
    for ax in axes.flat:
        if ax not in used:
            ax.set_axis_off()
    label_panels(ax for ax in axes.flat if ax in used)
    return figure


def _panel(ax: Axes, cell: Result, name: str, deflated: bool) -> None:
    """One spectrum; with deflation the bulk alone is enlarged in an inset, over the outliers it leaves room for."""
    spectrum, color = Spectrum.from_arrays(cell.arrays, name), COLORS[name.partition("_")[2]]
    spectrum_panel(ax, spectrum, color=color, outliers=deflated)
    if not deflated:
        return
    inset = ax.inset_axes((0.44, 0.42, 0.54, 0.55))
    spectrum_panel(inset, spectrum.bulk(), color=color, outliers=False)
    inset.set(xlabel="", ylabel="")
    inset.tick_params(labelsize="xx-small", pad=1)
    inset.tick_params(axis="y", labelleft=False)


def spectrum_title(name: str) -> str:
    """train_gauss_newton -> G, training data."""
    split, _, matrix = name.partition("_")
    symbol = {"hessian": "Hess", "gauss_newton": "G", "residual": "E = Hess − G"}[matrix]
    return f"{symbol}, {'training' if split == 'train' else split} data"


def _cell_title(result: Result) -> str:
    assert result.cell is not None
    return f"{result.data_title}\n{result.model_title}, n = {result.cell.n_per_class}"


def caption(results: Results) -> str:
    return (
        "Spectrum of the Hessian of the mean cross-entropy, without weight decay, on the training set and on "
        f"{test_set(results)}. {how_drawn(results)} {results.where('hessian_spectrum')}"
    )


def test_set(results: Results) -> str:
    """Which test examples the spectra are of."""
    settings = results.of("hessian_spectrum")[0].provenance["measurement"]
    count = settings.get("test_per_class")
    return "the whole test set" if count is None else f"the first {count} test examples of each class"


def how_drawn(results: Results) -> str:
    """How the spectra were computed and what the stems say."""
    settings = results.of("hessian_spectrum")[0].provenance["measurement"]
    return (
        "The C eigenvalues largest in magnitude are stems with circles as high as a single eigenvalue stands in "
        "the density (an open circle has not converged); those that are larger than all others by a margin are taken "
        "out of "
        f"the filled density, which is from {effort(settings)}, κ = {KAPPA:g}. What is "
        "lower than a tenth of a single eigenvalue is cut off. Scales differ between panels; insets enlarge the bulk."
    )


def effort(settings: Mapping[str, int]) -> str:
    """What the spectra cost: 56 Lanczos steps and 1 probe."""
    probes = settings["probes"]
    return f"{settings['steps']} Lanczos steps and {probes} {'probe' if probes == 1 else 'probes'}"
