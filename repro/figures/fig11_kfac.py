"""Figure 11: log spectra of G beside KFAC and EKFAC, layer by layer (Section 7)."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.figures.layers import layer_grid
from repro.figures.panels import log_spectrum_panel
from repro.figures.results import Results
from repro.figures.style import COLORS
from repro.spectra.broadening import LOG_KAPPA
from repro.spectra.record import Spectrum
from repro.storage.results import Result

MEASUREMENTS = ("kronecker_factors",)
PAPER = (
    "The figure compares G and KFAC by layer. EKFAC, the ε relative to the top eigenvalue and the Wasserstein "
    "distances are ours; the paper states no κ for its log spectra."
)


def draw(results: Results) -> Figure:
    """One panel per layer: G filled, KFAC and EKFAC as lines, with their distances to G."""
    return draw_against(results, ("kfac", "ekfac"))


def draw_against(results: Results, approximations: tuple[str, ...]) -> Figure:
    """G of each layer against some of its approximations."""

    def panel(ax: Axes, result: Result, index: int) -> None:
        arrays, l = result.arrays, int(result.arrays["positions"][index])
        spectra = {name: Spectrum.from_arrays(arrays, f"layer{l}_{name}") for name in ("exact", *approximations)}
        largest = float(spectra["exact"].eigenvalues[0])
        epsilon = float(result.provenance["measurement"]["epsilon"]) * largest
        for name, spectrum in spectra.items():
            log_spectrum_panel(
                ax, spectrum, limits=(0.5 * epsilon, 4 * largest), epsilon=epsilon, per_log=True,
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
    return f"Log spectrum of G of each layer (blue) beside KFAC and EKFAC. {how(results)}"


def how(results: Results) -> str:
    """What the curves and the numbers in the panels are."""
    settings = results.of("kronecker_factors")[0].provenance["measurement"]
    return (
        f"A layer is its weights with its bias. Density per unit ln λ from {settings['steps']} Lanczos steps for all "
        f"matrices alike, κ = {LOG_KAPPA:g}, ε = {settings['epsilon']:g} of the top eigenvalue "
        "of G. Numbers: Wasserstein distance of the log spectrum to that of G. "
        f"{results.where('kronecker_factors')}"
    )
