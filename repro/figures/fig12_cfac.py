"""Figure 12: log spectra of G beside CFAC, layer by layer (Section 7)."""

from __future__ import annotations

from matplotlib.figure import Figure

from repro.figures.fig11_kfac import draw_against, how
from repro.figures.results import Results

MEASUREMENTS = ("kronecker_factors",)
PAPER = (
    "The figure compares G and CFAC by layer. The ε relative to the top eigenvalue and the Wasserstein distances are "
    "ours; the paper states no κ for its log spectra."
)


def draw(results: Results) -> Figure:
    """One panel per layer: G filled, CFAC as a line, KFAC's distance beside CFAC's."""
    return draw_against(results, ("kfac", "cfac"))


def caption(results: Results) -> str:
    return (
        "Log spectrum of G of each layer (blue) beside CFAC, the average over classes of each class's KFAC, and KFAC "
        f"for comparison. {how(results)}"
    )
