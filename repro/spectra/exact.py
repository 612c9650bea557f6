"""The exact spectrum of G as numbers: what `repro.curvature.exact` finds, a measurement stores and a figure draws."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
Part = Literal["class", "cross", "within", "same"]  # of G, in the order of Eq. 6.4
PARTS: tuple[Part, ...] = get_args(Part)
COLORS = {"class": "#D55E00", "cross": "#009E73", "within": "#56B4E9", "same": "#CC79A7"}


def knockout_name(parts: Collection[str], how: str) -> str:
    """The name of the array that holds the spectrum of G without these parts."""
    return "_".join([how, *(part for part in PARTS if part in parts)])


class ExactSpectrum:
    """All eigenvalues of G that may be non-zero, what each part of G contributes to each, and G without its parts.

    `arrays` holds all of it by name, as numpy arrays; `ExactSpectrum(arrays)` is the same again. For N examples, C
    classes and P parameters, with R = min(N (C − 1), P), and every spectrum in decreasing order:

        eigenvalues [R]: of G. The other P − R are zero.
        share_<part> [R]: uᵀ part u / λ of each eigenpair (λ, u), for part = class, cross, within, same; they sum to
            one. NaN where λ is zero to rounding.
        overlap_class, overlap_cross [R]: squared length of the projection of u onto the range of that part, in [0, 1].
        class_cosines [C]: of the principal angles between the C largest eigenvectors and span{g_c}.
        class_part [C], cross_part [C (C − 2)], same_part [C]: eigenvalues of these parts.
        within_largest: the largest eigenvalue of G_within.
        subtraction_<parts> [R]: eigenvalues of G − parts, the parts' names joined by _: class, cross, same,
            class_cross, class_cross_same (which leaves G_within), and within, which leaves C (C − 1).
        projection_<parts> [R]: those of G projected onto what is perpendicular to the range of class, cross or both.
        mass [C, C]: the weights w_{c,c'}, which sum to one.
        dim: P.
        resolution: eigenvalues below it are zero to rounding.
    """

    def __init__(self, arrays: Mapping[str, Array]):
        self.arrays = dict(arrays)

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(self.of(part))} of {part}" for part in PARTS if len(self.of(part)))
        return f"ExactSpectrum: {len(self.eigenvalues)} eigenvalues up to {self.eigenvalues[0]:.3g}, {counts}"

    @property
    def eigenvalues(self) -> Array:  # [R]
        """Of G, in decreasing order."""
        return self.arrays["eigenvalues"]

    @property
    def shares(self) -> pd.DataFrame:
        """What class, cross, within and same contribute to each eigenvalue; a row each, which sums to one."""
        rank = pd.RangeIndex(1, len(self.eigenvalues) + 1, name="rank")
        return pd.DataFrame({part: self.arrays[f"share_{part}"] for part in PARTS}, index=rank)

    @property
    def source(self) -> NDArray[np.str_]:  # [R]
        """The part with the largest share in each eigenvalue; empty where it is zero to rounding."""
        shares = self.shares.to_numpy()
        known = ~np.isnan(shares[:, 0])
        return np.where(known, np.array(PARTS)[np.where(known[:, None], shares, 0).argmax(axis=1)], "")

    def of(self, part: str) -> Array:
        """The eigenvalues of G in which a part has the largest share."""
        return self.eigenvalues[self.source == _known(part)]

    @property
    def outliers(self) -> Array:
        """The eigenvalues of G that come from the class means (Definition 1.2): `of("class")`."""
        return self.of("class")

    @property
    def mini_bulk(self) -> Array:
        """The eigenvalues of G that come from the cross-class means: `of("cross")`. (G_cross has its own, `part`.)"""
        return self.of("cross")

    def part(self, name: str) -> Array:
        """The eigenvalues of one part of G itself."""
        if _known(name) == "within":
            return self.without("class", "cross", "same")
        return self.arrays[f"{name}_part"]

    def without(self, *parts: str, how: str = "subtraction") -> Array:
        """The eigenvalues of G without some of its parts (Definitions 3.1 and 3.2).

        Args:
            parts: "class", "cross", "same", "within", or "class" and "cross". A projection removes class and same
                together, as they have the same range.
            how: "subtraction" or "projection".

        Raises:
            ValueError: these parts were not knocked out so.
        """
        for part in parts:
            _known(part)
        if how == "projection":
            parts = tuple("class" if part == "same" else part for part in parts)
        name = knockout_name(parts, how)
        if name not in self.arrays:
            there = [key for key in self.arrays if key.startswith(("subtraction_", "projection_"))]
            raise ValueError(
                f"there is no {name} here, only {', '.join(there) or 'no knockout at all'}; exact_spectrum(...,"
                " knockouts=[...]) says which are computed"
            )
        return self.arrays[name]

    @property
    def trace(self) -> float:
        """Σ λ."""
        return float(self.eigenvalues.sum())

    @property
    def frobenius_norm(self) -> float:
        """√(Σ λ²)."""
        return float(np.linalg.norm(self.eigenvalues))

    @property
    def effective_rank(self) -> float:
        """exp(−Σ ρ ln ρ) with ρ = λ / tr G (Roy and Vetterli 2007): R for equal eigenvalues, 1 for one alone."""
        rho = self.eigenvalues[self.eigenvalues > 0] / (self.trace or 1)
        return float(np.exp(-(rho * np.log(rho)).sum())) if len(rho) else 0.0

    def frame(self) -> pd.DataFrame:
        """A row for each eigenvalue: its shares, its eigenvector's overlaps, and the part with the largest share."""
        table = self.shares.rename(columns=lambda part: f"share_{part}")
        table.insert(0, "eigenvalue", self.eigenvalues)
        for part in ("class", "cross"):
            table[f"overlap_{part}"] = self.arrays[f"overlap_{part}"]
        return table.assign(source=self.source)

    def draw(self, ax: Axes) -> None:
        """Eigenvalue against rank on logarithmic axes, coloured by the part with the largest share."""
        rank = np.arange(1, len(self.eigenvalues) + 1)
        for part in PARTS:
            own = self.source == part
            if own.any():
                ax.loglog(rank[own], self.eigenvalues[own], ".", color=COLORS[part], label=f"{own.sum()} of {part}")
        ax.set(xlabel="rank", ylabel="eigenvalue of G")
        ax.legend()

    def plot(self) -> Figure:
        """`draw` on a figure of its own."""
        from matplotlib.figure import Figure

        figure = Figure(layout="constrained")
        self.draw(figure.subplots())
        return figure


def stored_spectrum(arrays: Mapping[str, Array], prefix: str = "") -> ExactSpectrum:
    """One of the spectra that `repro.measurements.exact_spectrum` stores: its arrays are called `prefix` + name.

    Raises:
        KeyError: there is none of that prefix.
    """
    names = {name.removeprefix(prefix): name for name in arrays if name.startswith(prefix)}
    if "eigenvalues" not in names:
        raise KeyError(f"{prefix}eigenvalues")
    return ExactSpectrum({short: arrays[name] for short, name in names.items()})


def over_epochs(arrays: Mapping[str, Array]) -> dict[int, ExactSpectrum]:
    """The spectra of all checkpoints stored, by epoch; of a network without checkpoints its own, as epoch −1."""
    epochs = [int(epoch) for epoch in arrays["epochs"]]
    found = {epoch: stored_spectrum(arrays, f"epoch{epoch}_") for epoch in epochs[:-1]}
    return found | {epochs[-1] if epochs else -1: stored_spectrum(arrays)}


def _known(part: str) -> str:
    if part not in PARTS:
        raise ValueError(f"G has no part {part!r}; its parts are {', '.join(PARTS)}")
    return part
