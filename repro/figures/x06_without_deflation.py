"""Extra figure x6: spectra of Hess, G and E without deflation (Appendix C)."""

from __future__ import annotations

from matplotlib.figure import Figure

from repro.figures.fig03_hessian_spectrum import draw_spectra, effort
from repro.figures.results import Results
from repro.spectra.broadening import KAPPA

MEASUREMENTS = ("hessian_spectrum",)
PAPER = "Appendix C of the paper has such plots."
SPECTRA = ("train_hessian", "test_hessian", "train_gauss_newton", "train_residual")


def draw(results: Results) -> Figure:
    """Four panels per cell: train and test Hessian, G and E, outliers left in the density."""
    return draw_spectra(results.of("hessian_spectrum"), SPECTRA, deflated=False)


def caption(results: Results) -> str:
    settings = results.of("hessian_spectrum")[0].provenance["measurement"]
    return (
        "The spectra of Figures 3 and 4 as one density, without separating outliers: these are the bumps on the right. "
        "The width of the smoothing follows the whole range, so that the bulk "
        f"looks wider than after deflation. Made with {effort(settings)}, κ = "
        f"{KAPPA:g}. Each eigenvalue that Figures 3 and 4 take out of the density carries its exact mass 1/P here, "
        f"where a single probe of Lanczos would give it a random one. {results.where('hessian_spectrum')}"
    )
