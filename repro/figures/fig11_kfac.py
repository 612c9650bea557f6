"""Figure 11: log spectra of G beside KFAC and EKFAC, layer by layer (Section 7)."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.figures.layers import layer_grid
from repro.figures.panels import log_spectrum_panel
from repro.figures.results import Results
from repro.figures.style import COLORS
from repro.storage.results import Result

MEASUREMENTS = ("kronecker_factors",)
KAPPA = 1.04  # unstated in the paper for log spectra; 1.04 and 1.25 have been used


def draw(results: Results) -> Figure:
    """A panel a layer: G filled, KFAC and EKFAC as lines, with their distances to G."""
    return draw_against(results, ("kfac", "ekfac"))


def draw_against(results: Results, approximations: tuple[str, ...]) -> Figure:
    """G of each layer against some of its approximations."""

    def panel(ax: Axes, result: Result, index: int) -> None:
        arrays, l = result.arrays, int(result.arrays["positions"][index])
        largest = float(arrays[f"layer{l}_exact_eigenvalues"][0])
        epsilon = float(result.provenance["measurement"]["epsilon"]) * largest
        for name in ("exact", *approximations):
            prefix = f"layer{l}_{name}"
            log_spectrum_panel(
                ax, arrays[f"{prefix}_nodes"], arrays[f"{prefix}_weights"], int(arrays[f"{prefix}_dim"]),
                limits=(0.5 * epsilon, 4 * largest), epsilon=epsilon, kappa=KAPPA, per_log=True,
                color=COLORS["gauss_newton" if name == "exact" else name], fill=name == "exact",
                label="G" if name == "exact" else name.upper(),
            )  # fmt: skip
        ax.set_title(f"layer {l + 1}")
        to_g = dict(zip(("kfac", "cfac", "ekfac"), arrays["wasserstein"][index]))
        distances = [f"{name.upper()} {to_g[name]:.2f}" for name in approximations]
        ax.text(0.98, 0.98, "\n".join(distances), transform=ax.transAxes, ha="right", va="top", fontsize="x-small")

    return layer_grid(
        results.of("kronecker_factors"),
        lambda result: len(result.arrays["layers"]),
        panel,
        xlabel="eigenvalue λ + ε",
        ylabel="density per ln λ",
    )


def caption(results: Results) -> str:
    return f"Log spectrum of G of each layer (blue) beside KFAC, and EKFAC, which is ours. {how(results)}"


def how(results: Results) -> str:
    """What the curves and the numbers in the panels are."""
    settings = results.of("kronecker_factors")[0].provenance["measurement"]
    return (
        f"A layer is its weights with its bias. Density per unit ln λ from {settings['steps']} Lanczos steps for all "
        f"matrices alike, κ = {KAPPA} (unstated in the paper), ε = {settings['epsilon']:g} of the top eigenvalue of "
        "G (ours). Numbers (ours): Wasserstein distance of the log spectrum to that of G. "
        f"{results.where('kronecker_factors')}"
    )
