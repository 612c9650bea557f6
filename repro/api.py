"""Every measurement on a network of your own: a trained torch classifier and its data, no sweep and no files.

found = repro.spectrum(model, data)        # Hess, G and E: outliers and bulk density
found.outliers("train_hessian"); found.density("train_hessian")
parts = repro.knockouts(model, data)       # G without each of its four parts
found.plot(); parts.plot()                 # as in the paper's Figures 4 and 5
exact = repro.exact_spectrum(model, data)  # every eigenvalue of G, and which of its parts each comes from
exact.eigenvalues; exact.shares; exact.without("class"); exact.plot()
repro.spectrum(model, data, loss=nn.MSELoss())  # Hess, G and E of any loss; class structure is of the cross-entropy
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import nn

from repro.curvature import cross_class, exact
from repro.curvature.other_losses import LossLike
from repro.figures import FIGURES, find_figure
from repro.figures.fig03_hessian_spectrum import draw_spectra
from repro.figures.results import Results
from repro.figures.style import theme
from repro.measurements import find_measurement
from repro.measurements.settings import make_settings
from repro.network import Data, Network
from repro.spectra.broadening import Curve, linear_curve
from repro.spectra.exact import ExactSpectrum
from repro.spectra.record import Spectrum
from repro.storage.provenance import provenance
from repro.storage.results import Cell, Result, load_result, save_result


class Measured(Result):
    """What a measurement found: `arrays` by name, as its function documents them, and `provenance`."""

    @property
    def name(self) -> str:
        """The name of the measurement."""
        return self.provenance["measurement"]["name"]

    @property
    def spectra(self) -> list[str]:
        """Names of the spectra among the arrays, for `spectrum`, `outliers` and `density`."""
        return Spectrum.names(self.arrays)

    def spectrum(self, name: str) -> Spectrum:
        """One of the spectra: quadrature, leading eigenvalues with their residuals, and whether they converged.

        Raises:
            ValueError: there is none of that name.
        """
        if name not in self.spectra:
            raise ValueError(f"{self.name} holds no spectrum {name!r}; it holds {', '.join(self.spectra) or 'none'}")
        return Spectrum.from_arrays(self.arrays, name)

    def outliers(self, spectrum: str) -> np.ndarray:  # -> [k]
        """The leading eigenvalues of a spectrum, largest magnitude first; `spectrum(...).converged` says how sure."""
        return self.spectrum(spectrum).eigenvalues

    def density(self, spectrum: str) -> Curve:
        """Smoothed density per unit eigenvalue of what is left of a spectrum without the outliers taken out of it."""
        bulk = self.spectrum(spectrum).bulk()
        return linear_curve(bulk.nodes, bulk.weights)

    def frame(self) -> pd.DataFrame:
        """The leading eigenvalues as a table: spectrum, rank from 1, eigenvalue, residual (absolute), converged.

        For a measurement of no spectra, its arrays of one axis side by side, shorter ones filled up with NaN.
        """
        if not self.spectra:
            flat = {name: pd.Series(values) for name, values in self.arrays.items() if values.ndim == 1}
            return pd.DataFrame(flat)
        tables = []
        for name in self.spectra:
            found = self.spectrum(name)
            columns = {"eigenvalue": found.eigenvalues, "residual": found.residuals, "converged": found.converged}
            table = pd.DataFrame(columns)
            table.insert(0, "rank", np.arange(1, len(table) + 1))
            table.insert(0, "spectrum", name)
            tables.append(table)
        return pd.concat(tables, ignore_index=True)

    def __repr__(self) -> str:
        lines = [f"{self.name} of {self.cell or 'no network'}, {self.provenance.get('seconds', 0):.3g} s"]
        for name in self.spectra:
            found = self.spectrum(name)
            top = ", ".join(f"{value:.3g}" for value in found.eigenvalues[:3])
            lines.append(
                f"  {name}: P = {found.dim}, {int(found.converged.sum())} of {len(found.converged)} leading "
                f"eigenvalues converged{f': {top}, ...' if top else ''}"
            )
        if not self.spectra:
            lines += [f"  {name} {list(values.shape)}" for name, values in self.arrays.items()][:12]
        return "\n".join(lines)

    def plot(self, figure: str | int | None = None) -> Figure:
        """Drawn as a figure of the paper by its number; by default the first there is, or all spectra of Hess, G and E.

        Raises:
            ValueError: no such figure, or one that needs what was not measured.
        """
        if figure is None and self.name == "hessian_spectrum":
            with theme():
                return draw_spectra([self], self.spectra, deflated=True)
        drawn = [figure.number for figure in map(find_figure, FIGURES) if figure.drawn_from(self.name)]
        if not drawn:
            raise ValueError(f"no figure is drawn from {self.name} alone")
        chosen = find_figure(drawn[0] if figure is None else figure)
        if chosen.number not in drawn:
            raise ValueError(f"figure {chosen.number} is not drawn from {self.name}, which gives {', '.join(drawn)}")
        none = pd.DataFrame()
        try:
            return chosen.draw(Results("own network", {chosen.measurements[0]: [self]}, none, none))
        except KeyError as error:
            raise ValueError(f"figure {chosen.number} needs {error}, which was not measured") from error

    def save(self, path: str | Path) -> None:
        """Write arrays and provenance as one npz file, which `repro.load` makes this object of again."""
        cell = {"cell": list(self.cell)} if self.cell else {}
        save_result(Path(path), self.arrays, self.provenance | cell)


def load(path: str | Path) -> Measured:
    """A saved measurement, the library's or the pipeline's: with .plot, .outliers, .density and .frame.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or holds no measurement.
    """
    found = load_result(Path(path), None)
    if "name" not in found.provenance.get("measurement", {}):
        raise ValueError(f"{path} holds no measurement; a file that `save` or the pipeline wrote is needed")
    cell = found.provenance.get("cell")
    return Measured(Cell(*cell) if cell else None, found.arrays, found.provenance)


def spectrum(
    model: nn.Module, data: Data, test: Data | None = None, *, loss: LossLike = None, **settings: Any
) -> Measured:
    """Outliers and densities of Hess, G and E = Hess − G (Sections 4 and 5): `measure("hessian_spectrum", ...)`.

    The spectra are train_hessian, train_gauss_newton, train_residual, and with `test` also test_hessian. The settings
    are those of `repro.measurements.hessian_spectrum.Settings`. `loss` is that of `Network`: the cross-entropy, or
    another with the targets that it takes.

    >>> import torch, repro
    >>> from torch import nn
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).eval()
    >>> data = torch.randn(30, 4), torch.arange(30) % 3
    >>> found = repro.spectrum(model, data, steps=20)
    >>> found.spectra
    ['train_hessian', 'train_gauss_newton', 'train_residual']
    >>> found.outliers("train_gauss_newton").shape  # one eigenvalue per class
    (3,)
    """
    return measure("hessian_spectrum", Network(model, data, test, loss=loss), **settings)


def knockouts(model: nn.Module, data: Data, *, loss: LossLike = None, **settings: Any) -> Measured:
    """The spectrum of G, of G without each of its four parts, and the eigenvalues of the parts (Section 6).

    `measure("gauss_newton_knockouts", ...)`; the spectra are full, class, cross, within, same.

    Raises:
        ValueError: another `loss` than the cross-entropy of class labels, here and below.
    """
    return measure("gauss_newton_knockouts", Network(model, data, loss=loss), **settings)


def exact_spectrum(model: nn.Module, data: Data, *, loss: LossLike = None, **settings: Any) -> ExactSpectrum:
    """Every eigenvalue of G, exactly, what each of its four parts contributes, and G without its parts (Section 6).

    Work and memory follow from N examples and C classes alone, some (N C)^3 operations and 24 (N C)^2 bytes, however
    many parameters there are: for N C = 5000 a minute of a core. Hess and E have no such spectrum; see `spectrum`.

    Args:
        settings: `knockouts`, `memory_budget` and `parameters` of `repro.curvature.exact.exact_spectrum`.

    Raises:
        ValueError: the memory budget is too small for so many examples, or data or model for which G is not defined.

    >>> import torch, repro
    >>> from torch import nn
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).eval()
    >>> exact = repro.exact_spectrum(model, (torch.randn(30, 4), torch.arange(30) % 3))
    >>> len(exact.eigenvalues)  # 30 (3 - 1)
    60
    >>> bool((exact.shares.dropna().sum(axis=1) - 1).abs().max() < 1e-9)  # NaN where an eigenvalue is zero
    True
    """
    network = Network(model, data, loss=loss)
    network.check_class_structure("exact_spectrum")
    return exact.exact_spectrum(model, network.batches(), **settings)


def class_structure(model: nn.Module, data: Data, *, loss: LossLike = None) -> cross_class.ClassStructure:
    """The four-term decomposition of G (Eq. 6.4) as operators; C² x P numbers of memory.

    `.class_part`, `.cross_part`, `.same_part`, and with G a GaussNewton of the same data `.within_part(G)`.
    """
    network = Network(model, data, loss=loss)
    network.check_class_structure("class_structure")
    network.check_every_class()
    return cross_class.class_structure(model, network.batches())


def measure(name: str, network: Network, **settings: Any) -> Measured:
    """Any measurement of `repro.measurements` on a network of your own.

    Args:
        name: of the measurement, as its file in repro/measurements is called.
        settings: fields of the class `Settings` beside its function, in place of their defaults.

    Raises:
        ValueError: no measurement of that name, no network measured by it, a value that a setting cannot have, or a
            network with a loss that it is not of.
        TypeError: a setting that it does not have.
    """
    measurement = find_measurement(name)
    if not measurement.of_network:
        raise ValueError(f"{name} measures no network; call repro.measurements.{name}.measure(Settings())")
    if not measurement.any_loss:
        network.check_class_structure(name)
    chosen = make_settings(measurement.settings, settings, name)
    start = time.perf_counter()
    arrays = measurement.measure(network, chosen)
    made = provenance(network.train.labels.device, time.perf_counter() - start)
    made |= {"measurement": {"name": name, **asdict(chosen)}, "epochs": network.epochs}
    made |= {"loss": network.loss.name}
    return Measured(network.cell, arrays, made)
