"""Figure 4: the Hessian is G + E: its outliers come from G, its bulk largely from E (Section 5)."""

from __future__ import annotations

from matplotlib.figure import Figure

from repro.figures.fig03_hessian_spectrum import draw_spectra, how_drawn
from repro.figures.results import Results

MEASUREMENTS = ("hessian_spectrum",)
PAPER = "That these are spectra of the training data is our reading; the smoothing κ = 3 is the paper's."
PARTS = ("train_hessian", "train_gauss_newton", "train_residual")


def draw(results: Results) -> Figure:
    """Three panels a cell, on one eigenvalue axis: Hess, G, E on training data."""
    figure = draw_spectra(results.of("hessian_spectrum"), PARTS, deflated=True)
    share_eigenvalue_axis(figure, len(PARTS))
    return figure


def share_eigenvalue_axis(figure: Figure, parts: int) -> None:
    """The panels of one cell get the same limits, so that their outliers can be compared by position."""
    panels = list(figure.axes)
    columns = panels[0].get_subplotspec().get_geometry()[1]  # type: ignore[union-attr]
    for top in range(0, len(panels) // columns, parts):
        for column in range(columns):
            group = [panels[(top + row) * columns + column] for row in range(parts)]
            low, high = min(ax.get_xlim()[0] for ax in group), max(ax.get_xlim()[1] for ax in group)
            for ax in group:
                ax.set_xlim(low, high)


def caption(results: Results) -> str:
    return (
        "Spectra of the Hessian and of its two parts, Hess = G + E, on training data. "
        f"{how_drawn(results)} The eigenvalue axis is the same for the three. "
        f"{results.where('hessian_spectrum')}"
    )
