"""Figure 5: the log spectrum of G, and what each of its four parts contributes to it (knockouts)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.figures.panels import log_limits, log_spectrum_panel
from repro.figures.results import Results
from repro.figures.style import COLORS, PAGE, label_panels, subplots
from repro.spectra.broadening import EPSILON, LOG_KAPPA, Curve
from repro.spectra.record import Spectrum
from repro.storage.results import Result

MEASUREMENTS = ("gauss_newton_knockouts",)
PARTS = {"class": "$G_{class}$", "cross": "$G_{cross}$", "within": "$G_{within}$", "same": "$G_{c=c'}$"}


def draw(results: Results) -> Figure:
    """One panel per knockout: G filled, what is left of it as a line, circles on both at their largest eigenvalues."""
    found = results.of("gauss_newton_knockouts")
    columns = 2 if len(found) == 1 else 4  # one network fills the page, several take a row each
    figure, axes = subplots(
        len(found) * 4 // columns, columns, width=PAGE, row_height=2.1 if columns == 2 else 1.7, sharey="row"
    )
    for result, row in zip(found, axes.reshape(len(found), 4)):
        spectra = {name: Spectrum.from_arrays(result.arrays, name) for name in ("full", *PARTS)}
        limits = log_limits(spectra.values())
        for ax, part in zip(row, PARTS):
            _panel(ax, spectra, part, limits)
        if len(found) > 1:
            row[0].set_ylabel(f"{_title(result)}\n{row[0].get_ylabel()}")
    for ax in axes[:-1].flat:
        ax.set_xlabel("")
    for ax in axes[:, 1:].flat:
        ax.set_ylabel("")
    label_panels(axes.flat)
    return figure


def _panel(ax: Axes, spectra: dict[str, Spectrum], part: str, limits: tuple[float, float]) -> None:
    for name, color, label in (("full", COLORS["gauss_newton"], "$G$"), (part, COLORS[part], f"$G$ − {PARTS[part]}")):
        curve = log_spectrum_panel(ax, spectra[name], limits=limits, color=color, fill=name == "full", label=label)
        _mark(ax, curve, spectra[name].eigenvalues, color)
    ax.set_title(f"{PARTS[part]} knocked out")
    ax.legend(loc="lower left")


def _mark(ax: Axes, curve: Curve, eigenvalues: np.ndarray, color: str) -> None:  # [k]
    """A circle on the curve at each eigenvalue."""
    x = np.abs(eigenvalues) + EPSILON
    ax.plot(x, np.interp(x, curve.x, curve.density), "o", markersize=2.5, color=color, markeredgewidth=0, zorder=4)


def _title(result: Result) -> str:
    assert result.cell is not None
    return result.title


def caption(results: Results) -> str:
    return " ".join(_sentences(results))


def _sentences(results: Results) -> Iterator[str]:
    found = results.of("gauss_newton_knockouts")
    how = {result.provenance.get("measurement", {}).get("knockout", "subtraction") for result in found}
    steps = sorted({Spectrum.from_arrays(result.arrays, "full").steps for result in found})
    yield "The spectrum of G on the training set (filled) and what is left when one of its four parts is knocked out"
    yield f"(line), by {' or '.join(sorted(how))}; circles mark the largest eigenvalues of each."
    yield "That the figure is a log spectrum of G with these four knockouts is certain; that they are subtractions is"
    yield f"likely. Lanczos takes {', '.join(map(str, steps))} reorthogonalised steps (the paper: likely 2048 without);"
    yield f"ε = {EPSILON:g} is the paper's, κ = {LOG_KAPPA:g} that of the author's code, as the paper states none."
    yield "Without G_within the rest has rank C (C − 1) and its spectrum is exact."
    yield results.where("gauss_newton_knockouts")
