"""Every measurement on a network of your own: a trained torch classifier and its data, no sweep and no files.

found = repro.spectrum(model, data)        # Hess, G and E: outliers and bulk density
found.outliers("train_hessian"); found.density("train_hessian")
parts = repro.knockouts(model, data)       # G without each of its four parts
found.plot(); parts.plot()                 # as in the paper's Figures 4 and 5
exact = repro.exact_spectrum(model, data)  # every eigenvalue of G, and which of its parts each comes from
exact.eigenvalues; exact.shares; exact.without("class"); exact.plot()
repro.spectrum(model, data, loss=nn.MSELoss())  # Hess, G and E of any loss; class structure is of the cross-entropy

What takes long shows how far it is, can be stopped (Ctrl-C, time_limit=) with what was found by then, and with
checkpoint= is taken up again; see `measure`.
"""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import nn

from repro.curvature import cross_class, exact
from repro.curvature.batches import Unpack
from repro.curvature.checks import class_list
from repro.curvature.classifier import Logits
from repro.curvature.function import logits_of
from repro.curvature.other_losses import LossLike
from repro.curvature.parameters import Selection
from repro.figures import FIGURES, find_figure
from repro.figures.fig03_hessian_spectrum import draw_spectra
from repro.figures.results import Results
from repro.figures.style import theme
from repro.measurements import find_measurement
from repro.measurements.settings import MEMORY, make_settings, vector_bytes
from repro.network import Data, Network
from repro.spectra.broadening import Curve, linear_curve
from repro.spectra.exact import ExactSpectrum
from repro.spectra.record import Spectrum
from repro.storage import identity
from repro.storage.provenance import provenance
from repro.storage.results import Cell, Result, load_result, save_result
from repro.watch import Checkpoint, Progress, Watch, interruptible, watching
from repro.watch.bar import Bar
from repro.watch.fingerprint import environment, fingerprint

SETTLED = 0.01  # share of a density's mass that 8 Lanczos steps may still move when `spectrum` ends it (ours)


class Measured(Result):
    """What a measurement found: `arrays` by name, as its function documents them, and `provenance`."""

    @property
    def name(self) -> str:
        """The name of the measurement."""
        return self.provenance["measurement"]["name"]

    @property
    def complete(self) -> bool:
        """Whether all was measured; else `provenance["incomplete"]` says why not, and spectra may lack or be short."""
        return "incomplete" not in self.provenance

    @property
    def spectra(self) -> list[str]:
        """Names of the spectra among the arrays, for `spectrum`, `outliers` and `density`."""
        return Spectrum.names(self.arrays)

    def spectrum(self, name: str) -> Spectrum:
        """One of the spectra: quadrature, leading eigenvalues with their residuals, and whether they converged.

        Of a measurement over epochs it is that of the last; `arrays` have all.

        Raises:
            ValueError: there is none of that name.
        """
        if name not in self.spectra:
            raise ValueError(f"{self.name} holds no spectrum {name!r}; it holds {', '.join(self.spectra) or 'none'}")
        stacked = self.arrays[f"{name}_nodes"].ndim == 3  # over epochs
        return Spectrum.from_arrays(self.arrays, name, at=-1 if stacked else None)

    def outliers(self, spectrum: str) -> np.ndarray:  # -> [k]
        """The leading eigenvalues of a spectrum, largest magnitude first; `spectrum(...).converged` says how sure."""
        return self.spectrum(spectrum).eigenvalues

    def density(self, spectrum: str) -> Curve:
        """Smoothed density per unit eigenvalue of what is left of a spectrum without the outliers taken out of it.

        Raises:
            ValueError: there is no spectrum of that name, or it was stopped before its first probe was finished.
        """
        if not len(self.spectrum(spectrum).nodes):
            raise ValueError(f"{spectrum} was stopped before its first probe was finished: it has no density")
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
        if not self.complete:
            lines.append(f"  INCOMPLETE: {self.provenance['incomplete']}")
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
        """Drawn as a figure of the paper by its number, or by default.

        That is all spectra of Hess, G and E, or else the first figure that needs nothing but what was measured.

        Raises:
            ValueError: no such figure, or one that needs what was not measured.
        """
        if figure is None and self.name == "hessian_spectrum":
            whole = [name for name in self.spectra if len(self.spectrum(name).nodes)]
            if not whole:
                raise ValueError(f"there is nothing to draw: of {', '.join(self.spectra) or 'no spectrum'} no density")
            layers = self._by_layer(whole)
            with theme():
                return draw_spectra(layers, layers[0].spectra, deflated=True)
        drawn = [figure.number for figure in map(find_figure, FIGURES) if figure.drawn_from(self.name)]
        if not drawn:
            raise ValueError(f"no figure is drawn from {self.name} alone")
        if figure is not None:
            chosen = find_figure(figure).number
            if chosen not in drawn:
                raise ValueError(f"figure {chosen} is not drawn from {self.name}, which gives {', '.join(drawn)}")
            drawn = [chosen]
        none, lacking = pd.DataFrame(), list[str]()
        for number in drawn:
            try:
                results = Results("own network", {find_figure(number).measurements[0]: [self]}, none, none)
                return find_figure(number).draw(results)
            except KeyError as error:
                lacking.append(f"figure {number} needs {error}, which was not measured")
        raise ValueError("; ".join(lacking))

    def _by_layer(self, spectra: Sequence[str]) -> list[Measured]:
        """Those of the spectra that each layer has, if they are named so; of the last, where it was stopped, none."""
        found: dict[str, dict[str, np.ndarray]] = {}
        for name in spectra:
            layer, _, own = name.rpartition("/")
            found.setdefault(layer, {}).update(self.spectrum(name).arrays(own))
        whole = [layer for layer in found if len(found[layer]) == len(next(iter(found.values())))]
        cells = {
            layer: self.cell._replace(model=f"{self.cell.model} {layer}") if self.cell and layer else self.cell
            for layer in whole
        }
        return [Measured(cells[layer], found[layer], self.provenance) for layer in whole]

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


def _settings_of(name: str) -> Callable[[Callable[..., Measured]], Callable[..., Measured]]:
    """Let the signature of a function, which `help` shows, name the settings of its measurement with their defaults."""

    def decorate(function: Callable[..., Measured]) -> Callable[..., Measured]:
        own = inspect.signature(function)
        named = [each for each in own.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
        settings = [
            inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=each.type)
            for each in fields(find_measurement(name).settings)
        ]
        function.__signature__ = own.replace(parameters=[*named, *settings])  # type: ignore[attr-defined]
        return function

    return decorate


@_settings_of("hessian_spectrum")
def spectrum(
    model: nn.Module,
    data: Data,
    test: Data | None = None,
    *,
    by: Literal["layer"] | None = None,
    loss: LossLike = None,
    parameters: Selection = None,
    unpack: Unpack | None = None,
    logits: Logits | None = None,
    checkpoint: str | Path | None = None,
    time_limit: float | None = None,
    progress: bool | Callable[[Progress], object] = True,
    **settings: Any,
) -> Measured:
    """Outliers and densities of Hess, G and E = Hess − G (Sections 4 and 5): `measure("hessian_spectrum", ...)`.

    The spectra are train_hessian, train_gauss_newton, train_residual, and with `test` also test_hessian. The settings
    are those of `repro.measurements.hessian_spectrum.Settings`.

    Without `steps` each spectrum is over as soon as its outliers have converged and its density has settled, which 8
    further steps then change by less than `SETTLED` of its mass; after 128 steps, or twice the outliers where that is
    more, at the latest.

    Args:
        by: "layer" for the spectra of the diagonal block of each layer, a module with parameters of its own, named
            <layer>/train_hessian and so on; each layer takes about as many products as the whole network.
        loss, parameters, unpack, logits: as of `repro.network.Network`.
        checkpoint, time_limit, progress: as in `measure`.

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
    >>> repro.spectrum(model, data, by="layer", spectra=["train_hessian"], steps=20).spectra
    ['0/train_hessian', '2/train_hessian']
    """
    if by not in (None, "layer"):
        raise ValueError(f"by is {by!r}: it is 'layer', or left out for the matrix of the whole network")
    network = Network(model, data, test, loss=loss, parameters=parameters, unpack=unpack, logits=logits)
    name, network = "hessian_spectrum", network if by is None else network.by_layer()
    settled = None
    if settings.get("steps") is None:
        settled, k = SETTLED, settings.get("outliers")
        if isinstance(k, int):  # without, one for each class
            settings["steps"] = max(find_measurement(name).settings.usual_steps, 2 * k)
    return _measure(
        name, network, settings, checkpoint=checkpoint, time_limit=time_limit, progress=progress, settled=settled
    )


@_settings_of("gauss_newton_knockouts")
def knockouts(
    model: nn.Module,
    data: Data,
    *,
    loss: LossLike = None,
    parameters: Selection = None,
    unpack: Unpack | None = None,
    logits: Logits | None = None,
    checkpoint: str | Path | None = None,
    time_limit: float | None = None,
    progress: bool | Callable[[Progress], object] = True,
    **settings: Any,
) -> Measured:
    """The spectrum of G, of G without each of its four parts, and the eigenvalues of the parts (Section 6).

    `measure("gauss_newton_knockouts", ...)`; the spectra are full, class, cross, within, same. `checkpoint`,
    `time_limit` and `progress` are as in `measure`. With `classes=[...]` the parts are those of some of the classes,
    as in `class_structure`: for a large vocabulary, of which C² means cannot be held.

    Args:
        loss, parameters, unpack, logits: as of `repro.network.Network`.
    """
    network = Network(model, data, loss=loss, parameters=parameters, unpack=unpack, logits=logits)
    name = "gauss_newton_knockouts"
    return measure(name, network, checkpoint=checkpoint, time_limit=time_limit, progress=progress, **settings)


def exact_spectrum(
    model: nn.Module,
    data: Data,
    *,
    loss: LossLike = None,
    parameters: Selection = None,
    unpack: Unpack | None = None,
    logits: Logits | None = None,
    **settings: Any,
) -> ExactSpectrum:
    """Every eigenvalue of G, exactly, what each of its four parts contributes, and G without its parts (Section 6).

    Work and memory follow from N examples (or labelled positions) and C classes alone, some (N C)^3 operations and
    24 (N C)^2 bytes, however many parameters there are: for N C = 5000 a minute of a core. Hess and E have no such
    spectrum; see `spectrum`.

    Args:
        loss, parameters, unpack, logits: as of `repro.network.Network`.
        settings: `knockouts` and `memory_budget` of `repro.curvature.exact.exact_spectrum`.

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
    network = Network(model, data, loss=loss, parameters=parameters, unpack=unpack, logits=logits)
    network.check_class_structure("exact_spectrum")
    return exact.exact_spectrum(network.model, network.batches(), parameters=network.parameters, **settings)


def class_structure(
    model: nn.Module,
    data: Data,
    *,
    loss: LossLike = None,
    parameters: Selection = None,
    unpack: Unpack | None = None,
    logits: Logits | None = None,
    classes: Sequence[int] | None = None,
    memory_budget: int = MEMORY,
) -> cross_class.ClassStructure:
    """The four-term decomposition of G (Eq. 6.4) as operators; C² x P numbers of memory.

    `.class_part`, `.cross_part`, `.same_part`, and with G a GaussNewton of the same data `.within_part(G)`.

    Args:
        loss, parameters, unpack, logits: as of `repro.network.Network`.
        classes: some of them, K of the C, whose terms alone the parts then consist of: K² x P numbers. The loss stays
            that of all C logits, and the class means are over all labels; see
            `repro.curvature.cross_class.ClassStructure`.
        memory_budget: bytes for these numbers.

    Raises:
        ValueError: the memory budget does not hold them; data without an example of one of the classes, or data or a
            model that `repro.Network` refuses.

    >>> import torch, repro
    >>> from torch import nn
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 5)).eval()
    >>> data = torch.randn(30, 4), torch.arange(30) % 5
    >>> repro.class_structure(model, data, classes=[4, 1]).class_means().shape
    torch.Size([2, 85])
    """
    network = Network(model, data, loss=loss, parameters=parameters, unpack=unpack, logits=logits)
    network.check_class_structure("class_structure")
    chosen = class_list(classes)
    C = network.classes if chosen is None else len(chosen)
    if (needed := C**2 * vector_bytes(network)) > memory_budget:
        raise ValueError(
            f"class_structure needs {needed / 1e9:.3g} GB of memory for {C}² means of {network.dim} parameters, more"
            f" than memory_budget = {memory_budget:.3g}: raise it, or ask for some of the classes with classes=[...]"
        )
    network.check_every_class(chosen)
    return cross_class.class_structure(network.model, network.batches(), parameters=network.parameters, classes=chosen)


def measure(
    name: str,
    network: Network,
    *,
    checkpoint: str | Path | None = None,
    time_limit: float | None = None,
    progress: bool | Callable[[Progress], object] = True,
    **settings: Any,
) -> Measured:
    """Any measurement of `repro.measurements` on a network of your own.

    Ctrl-C ends it after the product it is at, and `time_limit` before the product that would not be over by then; what
    is no product ends after the batch it is at. What was measured until then comes back; its `complete` is False, and
    what it lacks, or what of it has converged, is said by its repr. A spectrum that was under way has the pairs and the
    density that its steps so far give; of epochs and layers there are those that were finished. A second Ctrl-C, or one
    before there is anything to give back, raises as ever.

    Args:
        name: of the measurement, as its file in repro/measurements is called.
        checkpoint: a folder, made if it is not there, in which the measurement keeps what it has, and from which the
            same call takes it up again: after Ctrl-C, `time_limit` or a kill. On the same machine, with as many
            threads, the result is the same to the bit. For what it takes of disk and time see
            `repro.watch.checkpoint`; it is removed at the end.
        time_limit: seconds.
        progress: True for a bar, on a terminal or in a notebook; False for none; or a function that is given a
            `repro.watch.Progress` after each product.
        settings: fields of the class `Settings` beside its function, in place of their defaults.

    Raises:
        ValueError: no measurement of that name, no network measured by it, a value that a setting cannot have, a
            network with a loss that it is not of, or a checkpoint of another measurement.
        TypeError: a setting that it does not have, or `progress` that cannot be called.
        TimeoutError, KeyboardInterrupt: it was stopped before there was anything to give back.
    """
    return _measure(name, network, settings, checkpoint=checkpoint, time_limit=time_limit, progress=progress)


def _measure(
    name: str,
    network: Network,
    settings: Mapping[str, Any],
    *,
    checkpoint: str | Path | None,
    time_limit: float | None,
    progress: bool | Callable[[Progress], object],
    settled: float | None = None,
) -> Measured:
    measurement = find_measurement(name)
    if not measurement.of_network:
        raise ValueError(f"{name} measures no network; call repro.measurements.{name}.measure(Settings())")
    if not measurement.any_loss:
        network.check_class_structure(name)
    chosen = make_settings(measurement.settings, settings, name)
    if time_limit is not None and not (isinstance(time_limit, Real) and time_limit > 0):
        raise ValueError(f"time_limit is {time_limit!r}: a positive number of seconds is needed")
    if not (isinstance(progress, bool) or callable(progress)):
        raise TypeError(f"progress is {progress!r}: True, False or a function of a repro.watch.Progress is needed")
    start, device = time.perf_counter(), network.train.labels.device
    kept = None
    if checkpoint is not None:
        content = {"settings": asdict(chosen), "settled": settled, "loss": network.loss.name}
        content |= {"parameters": {name: part.parameters for name, part in network.parts.items()}}
        content |= {"network": _fingerprint(network), **environment(device)}
        kept = Checkpoint(Path(checkpoint), identity.digest({"name": name, "version": measurement.version, **content}))
    with contextlib.ExitStack() as stack:
        told = stack.enter_context(Bar()) if progress is True else progress or None
        watch = Watch(checkpoint=kept, time_limit=time_limit, progress=told, settled=settled)
        stack.enter_context(watching(watch))
        stack.enter_context(interruptible(watch))
        arrays = watch.result_of(lambda: measurement.measure(network, chosen))
    if kept is not None and watch.stopped is None:
        kept.remove()
    made = provenance(device, time.perf_counter() - start + (kept.seconds_before if kept else 0))
    made |= {"measurement": {"name": name, **asdict(chosen)}, "epochs": network.epochs}
    made |= {"loss": network.loss.name}
    if network.parameters is not None:
        made["parameters"] = network.parameters
    if settled is not None:
        made["settled"] = settled
    if watch.stopped is not None:
        made["incomplete"] = watch.stopped
    return Measured(network.cell, arrays, made)


def _fingerprint(network: Network) -> str:
    """Of the network with its checkpoints, all its data, and its loss by what it does on them: its derivatives."""
    models = [network.model, *map(network.at_epoch, network.epochs)]
    test = [] if network.test is None else network.batches("test")
    errors = []
    for x, y in network.batches():
        outputs = logits_of(network.model, x)
        targets = network.loss.checked(outputs, y)
        errors.append([network.loss.weights(targets) * network.loss.errors(outputs, targets).detach()])
    return fingerprint(models, [*network.batches(), *test, *errors])
