"""Figure 5: the spectrum of G, and what each of its four parts contributes to it (knockouts)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from repro.figures.counts import NAMES, PER_DECADE, bins, count_panel, mark_eigenvalues
from repro.figures.panels import log_limits, log_spectrum_panel
from repro.figures.results import Results, is_exact
from repro.figures.style import COLORS, PAGE, label_panels, subplots
from repro.spectra.broadening import EPSILON, LOG_KAPPA, Curve
from repro.spectra.exact import stored_spectrum
from repro.spectra.record import Spectrum
from repro.storage.results import Result

MEASUREMENTS = ("exact_spectrum",)
FALLBACK = "gauss_newton_knockouts"
PAPER = (
    "That the figure shows G with these four knockouts is certain; that they are subtractions is likely. The paper "
    "smooths an estimate by Lanczos with ε = 1e-5; it states no κ."
)


def draw(results: Results) -> Figure:
    """One panel per knockout: G filled, and what is left of it as a line."""
    found = results.of("exact_spectrum")
    columns = 2 if len(found) == 1 else 4  # one network fills the page, several take a row each
    figure, axes = subplots(
        len(found) * 4 // columns, columns, width=PAGE, row_height=2.1 if columns == 2 else 1.7, sharey="row"
    )
    for result, row in zip(found, axes.reshape(len(found), 4)):
        (_counted if is_exact(result) else _estimated)(row, result.arrays)
        if len(found) > 1:
            row[0].set_ylabel(f"{_title(result)}\n{row[0].get_ylabel()}", fontsize="x-small")
    for ax in axes[:-1].flat:
        ax.set_xlabel("")
    for ax in axes[:, 1:].flat:
        ax.set_ylabel("")
    label_panels(axes.flat)
    return figure


def _counted(row: np.ndarray, arrays: dict[str, np.ndarray]) -> None:  # axes [4]
    """Histograms of all eigenvalues; ticks at those of the part that is knocked out."""
    spectrum = stored_spectrum(arrays)
    edges = bins(spectrum.eigenvalues[0])
    for ax, part in zip(row, NAMES):
        count_panel(ax, spectrum.eigenvalues, edges, color=COLORS["gauss_newton"], fill=True, label="$G$")
        count_panel(ax, spectrum.without(part), edges, color=COLORS[part], label=f"$G$ − {NAMES[part]}")
        if part != "within":
            mark_eigenvalues(ax, spectrum.part(part), color=COLORS[part])
        _describe(ax, part, "upper left")


def _estimated(row: np.ndarray, arrays: dict[str, np.ndarray]) -> None:  # axes [4]
    """Log spectra by Lanczos; circles at the largest eigenvalues."""
    spectra = {name: Spectrum.from_arrays(arrays, name) for name in ("full", *NAMES)}
    limits = log_limits(spectra.values())
    for ax, part in zip(row, NAMES):
        lines = (("full", COLORS["gauss_newton"], "$G$"), (part, COLORS[part], f"$G$ − {NAMES[part]}"))
        for name, color, label in lines:
            curve = log_spectrum_panel(ax, spectra[name], limits=limits, color=color, fill=name == "full", label=label)
            _mark(ax, curve, spectra[name].eigenvalues, color)
        _describe(ax, part, "lower left")


def _describe(ax: Axes, part: str, legend: Literal["upper left", "lower left"]) -> None:
    ax.set_title(f"{NAMES[part]} knocked out")
    ax.legend(loc=legend, fontsize="x-small")  # type: ignore[call-overload]


def _mark(ax: Axes, curve: Curve, eigenvalues: np.ndarray, color: str) -> None:  # [k]
    """A circle on the curve at each eigenvalue."""
    x = np.abs(eigenvalues) + EPSILON
    ax.plot(x, np.interp(x, curve.x, curve.density), "o", markersize=2.5, color=color, markeredgewidth=0, zorder=4)


def _title(result: Result) -> str:
    assert result.cell is not None
    return result.title.replace(", ", "\n")


def caption(results: Results) -> str:
    return " ".join(_sentences(results))


def _sentences(results: Results) -> Iterator[str]:
    found = results.of("exact_spectrum")
    estimated = [result for result in found if not is_exact(result)]
    yield "The spectrum of G on the training set (filled) and what is left when one of its four parts is knocked out"
    yield "(line)."
    if len(estimated) < len(found):
        yield f"Every eigenvalue is computed and counted, {PER_DECADE} bins per decade, where the paper smooths an"
        yield "estimate by Lanczos; ticks mark the eigenvalues of the part itself. Those that are zero are left out."
    if estimated:
        yield from _about_lanczos(estimated, mixed=len(estimated) < len(found))
    yield results.where("exact_spectrum")


def _about_lanczos(found: list[Result], *, mixed: bool) -> Iterator[str]:
    how = {result.provenance.get("measurement", {}).get("knockout", "subtraction") for result in found}
    steps = sorted({Spectrum.from_arrays(result.arrays, "full").steps for result in found})
    where = f"Of {'; '.join(result.title for result in found)}" if mixed else "Here"
    yield f"{where} the density is estimated by Lanczos, as there are too many examples to count eigenvalues: knockouts"
    yield f"by {' or '.join(sorted(how))}, circles at the largest eigenvalues of each,"
    yield f"{', '.join(map(str, steps))} reorthogonalised steps (the paper: likely 2048 without);"
    yield f"ε = {EPSILON:g} is the paper's, κ = {LOG_KAPPA:g} that of the author's code, as the paper states none."
    yield "Without G_within the rest has rank C (C − 1) and its spectrum is exact."
