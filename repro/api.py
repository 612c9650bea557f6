"""Every measurement on a network of your own: a trained torch classifier and its data, no sweep and no files.

found = repro.spectrum(model, data)        # Hess, G and E: outliers and bulk density
found.outliers("train_hessian"); found.density("train_hessian")
parts = repro.knockouts(model, data)       # G without each of its four parts
found.plot(); parts.plot()                 # as in the paper's Figures 4 and 5
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from repro.curvature import checks, cross_class
from repro.curvature.function import check_fixed_function, check_gradients
from repro.data import Split
from repro.figures import FIGURES, find_figure
from repro.figures.fig03_hessian_spectrum import draw_spectra
from repro.figures.results import Results
from repro.figures.style import theme
from repro.measurements import check_choices, find_measurement
from repro.spectra.broadening import Curve, linear_curve, split_outliers
from repro.storage.provenance import provenance
from repro.storage.results import Cell, Result, save_result

Data = Iterable[tuple[Tensor, Tensor]] | tuple[Tensor, Tensor] | Dataset[Any]


class Network:
    """A trained classifier with its data, checked, in the form that every measurement takes.

    The data are read once, in their order, and held on the model's device.

    Attributes:
        model: as given; the mean cross-entropy of its logits is what curvature is taken of.
        train, test: the data; `test` is None if none were given.
        weight_decay: of its training; the measurement `weights` needs it, no other uses it.
        epochs: of the checkpoints given, ascending.
    """

    def __init__(
        self,
        model: nn.Module,
        train: Data,
        test: Data | None = None,
        *,
        weight_decay: float = 0.0,
        checkpoints: Mapping[int, nn.Module] | None = None,
        batch_size: int = 256,
    ):
        """Check the model and its data; one pass over each.

        Args:
            model: a classifier in eval mode, inputs [B, ...] -> logits [B, C].
            train, test: tensors (inputs, labels), a Dataset of such pairs, a DataLoader, or a list of batches.
            checkpoints: networks by epoch, for the measurements `dynamics` and `alignment_dynamics`.
            batch_size: examples a batch when curvature is averaged: memory, not results.

        Raises:
            TypeError: data in another form, or a model that is no nn.Module.
            ValueError: model or data for which curvature is not defined; the sentence says why and what to do.
        """
        if not isinstance(model, nn.Module):
            raise TypeError(f"the model is a {type(model).__name__}: a torch.nn.Module is needed")
        self.model, self.weight_decay, self.batch_size = model, weight_decay, batch_size
        self._checkpoints = dict(checkpoints or {})
        self.epochs = sorted(self._checkpoints)
        for network in (model, *self._checkpoints.values()):
            _check_model(network)
        for epoch, network in self._checkpoints.items():
            _check_same_architecture(network, model, f"the checkpoint of epoch {epoch}")
        self.train = _split(model, train, batch_size)
        self.test = None if test is None else _split(model, test, batch_size)
        for network in (model, *self._checkpoints.values()):
            check_fixed_function(network, self.train.images[:8])
            check_gradients(network, self.batches())
        checks.check_classes(self.train.labels, self.train.classes)
        self.cell = Cell("own data", type(model).__name__, len(self.train.labels) // self.train.classes)

    def at_epoch(self, epoch: int) -> nn.Module:
        """The checkpoint of one of `epochs`."""
        return self._checkpoints[epoch]

    def batches(self, split: str = "train") -> list[tuple[Tensor, Tensor]]:
        """The batches that curvature is averaged over; what `repro.curvature` takes as `data`."""
        chosen = {"train": self.train, "test": self.test}[split]
        if chosen is None:
            raise ValueError("no test data were given, and this is a measurement on test data: pass test=...")
        return chosen.batches(self.batch_size)


class Measured(Result):
    """What a measurement found: `arrays` by name, as its function documents them, and `provenance`."""

    @property
    def name(self) -> str:
        """Of the measurement."""
        return self.provenance["measurement"]["name"]

    @property
    def spectra(self) -> list[str]:
        """Names of the spectra among the arrays, for `outliers` and `density`."""
        found = [key.removesuffix("_nodes") for key in self.arrays if key.endswith("_nodes")]
        return [name for name in found if f"{name}_converged" in self.arrays]

    def outliers(self, spectrum: str) -> np.ndarray:  # -> [k]
        """The leading eigenvalues of a spectrum, largest magnitude first (see its array `<spectrum>_converged`)."""
        return self.arrays[f"{self._known(spectrum)}_eigenvalues"]

    def density(self, spectrum: str) -> Curve:
        """Smoothed density per unit eigenvalue of what is left of a spectrum without its converged outliers."""
        nodes, weights, converged = (
            self.arrays[f"{self._known(spectrum)}_{key}"] for key in ("nodes", "weights", "converged")
        )
        return linear_curve(*split_outliers(nodes, weights, converged))

    def plot(self, figure: str | int | None = None) -> Figure:
        """Drawn as a figure of the paper by its number; by default the first there is, or all spectra of Hess, G and E.

        Raises:
            ValueError: no such figure, or one that needs what was not measured.
        """
        if figure is None and self.name == "hessian_spectrum":
            with theme():
                return draw_spectra([self], self.spectra, deflated=True)
        drawn = [number for number in FIGURES if find_figure(number).measurements == (self.name,)]
        if not drawn:
            raise ValueError(f"no figure is drawn from {self.name} alone")
        chosen = find_figure(drawn[0] if figure is None else figure)
        if chosen.number not in drawn:
            raise ValueError(f"figure {chosen.number} is not drawn from {self.name}, which gives {', '.join(drawn)}")
        none = pd.DataFrame()
        try:
            return chosen.draw(Results("own network", {self.name: [self]}, none, none))
        except KeyError as error:
            raise ValueError(f"figure {chosen.number} needs {error}, which was not measured") from error

    def save(self, path: str | Path) -> None:
        """Write arrays and provenance as one npz file; `repro.storage.results.load_result` reads it."""
        save_result(Path(path), self.arrays, self.provenance)

    def _known(self, spectrum: str) -> str:
        if spectrum not in self.spectra:
            raise ValueError(
                f"{self.name} holds no spectrum {spectrum!r}; it holds {', '.join(self.spectra) or 'none'}"
            )
        return spectrum


def spectrum(model: nn.Module, data: Data, test: Data | None = None, **settings: Any) -> Measured:
    """Outliers and densities of Hess, G and E = Hess − G (Sections 4 and 5): `measure("hessian_spectrum", ...)`.

    The spectra are train_hessian, train_gauss_newton, train_residual, and with `test` also test_hessian.
    """
    return measure("hessian_spectrum", Network(model, data, test), **settings)


def knockouts(model: nn.Module, data: Data, **settings: Any) -> Measured:
    """The spectrum of G, of G without each of its four parts, and the eigenvalues of the parts (Section 6).

    `measure("gauss_newton_knockouts", ...)`; the spectra are full, class, cross, within, same.
    """
    return measure("gauss_newton_knockouts", Network(model, data), **settings)


def class_structure(model: nn.Module, data: Data) -> cross_class.ClassStructure:
    """The four-term decomposition of G (Eq. 6.4) as operators; C² x P numbers of memory.

    `.class_part`, `.cross_part`, `.same_part`, and with G a GaussNewton of the same data `.within_part(G)`.
    """
    return cross_class.class_structure(model, Network(model, data).batches())


def measure(name: str, network: Network, **settings: Any) -> Measured:
    """Any measurement of `repro.measurements` on a network of your own.

    Args:
        name: of the measurement, as its file in repro/measurements is called.
        settings: keyword arguments of its function `measure`; `defaults` gives those left out.

    Raises:
        ValueError: no measurement of that name, no network measured by it, or a choice that is none of a setting's.
        TypeError: a setting that it does not have.
    """
    function = find_measurement(name)
    check_choices(function, settings)
    wanted = list(inspect.signature(function).parameters)
    if "run" not in wanted:
        raise ValueError(f"{name} measures no network; call repro.measurements.{name}.measure")
    if unknown := sorted(settings.keys() - set(wanted[1:])):
        raise TypeError(f"{name} has no setting {', '.join(unknown)}; it has {', '.join(wanted[1:]) or 'none'}")
    chosen = {key: value for key, value in defaults(network).items() if key in wanted} | settings
    start = time.perf_counter()
    arrays = function(network, **chosen)
    made = provenance(network.train.labels.device, time.perf_counter() - start)
    made |= {"measurement": {"name": name, **chosen}, "epochs": network.epochs}
    return Measured(network.cell, arrays, made)


def defaults(network: Network) -> dict[str, Any]:
    """What a setting is if it is not given: the same in every measurement that has one of that name."""
    C, test = network.train.classes, [] if network.test is None else ["test_hessian"]
    return {
        "spectra": ["train_hessian", *test, "train_gauss_newton", "train_residual"],
        "outliers": None,  # C of them
        "eigenvectors": None,  # 2 C of them
        "steps": max(128, 2 * C),
        "max_products": max(128, 4 * C),
        "probes": 1,
        "tolerance": 1e-3,
        "memory_budget": 4e9,  # bytes
        "seed": 0,
        "knockout": "subtraction",
        "sharing": "expand",
        "epochs": None,  # all checkpoints
        "layers": None,  # all
        "exact_limit": 1500,
        "stored_nodes": 4096,
        "stored_means": 2500,
        "epsilon": 1e-5,
    }


def _split(model: nn.Module, data: Any, batch_size: int) -> Split:
    """The data as two tensors on the model's device; one pass to look at the logits."""
    like = next(model.parameters())
    try:
        batches = [_checked_batch(batch, like) for batch in _batches(data, batch_size)]
    except TypeError as error:
        if "default_collate" not in str(error):
            raise
        raise TypeError(f"{error}; give the data set a transform that makes tensors, ToTensor() for images") from error
    if not batches:
        raise ValueError("no data: a mean over examples needs at least one batch")
    x, y = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches]).long()
    classes = 0
    with torch.no_grad():
        for inputs, labels in Split(x, y, 0).batches(batch_size):
            try:
                logits = model(inputs)
            except RuntimeError as error:
                reason = " ".join(str(error).split())[:300]
                raise ValueError(f"the model does not take inputs of shape {list(inputs.shape)}: {reason}") from error
            checks.check_logits(logits, labels)
            classes = logits.shape[1]
    return Split(x, y, classes)


def _batches(data: Any, batch_size: int) -> Iterable[Any]:
    """Data in any of the accepted forms as batches (inputs, labels)."""
    if isinstance(data, Sequence) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        return [data]
    if isinstance(data, DataLoader):
        if data.drop_last:
            raise ValueError(
                "the loader has drop_last=True, so the mean would leave examples out: pass its data set instead"
            )
        return data
    if isinstance(data, Dataset):
        return DataLoader(data, batch_size=batch_size)
    if isinstance(data, Iterable) and not isinstance(data, Tensor | str | Mapping):
        return data
    raise TypeError(
        f"the data are a {type(data).__name__}: tensors (inputs, labels), a Dataset, a DataLoader or a list of batches"
        " (inputs, labels) are needed"
    )


def _checked_batch(batch: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """One batch on the model's device."""
    if not (isinstance(batch, Sequence) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch)):
        raise TypeError(
            f"a batch of the data is a {type(batch).__name__}: a pair of tensors (inputs, labels) is needed"
        )
    x, y = (part.to(like.device) for part in batch)
    if x.dtype == torch.uint8:
        raise ValueError("the inputs are uint8: convert them to the model's dtype as in its training (ToTensor, ...)")
    checks.check_batch(x, y, like)
    return x, y


def _check_model(model: nn.Module) -> None:
    """What can be told without data."""
    checks.check_deterministic(model)
    if training := [name or "the model" for name, module in model.named_modules() if module.training]:
        raise ValueError(f"{training[0]} is in train mode: call model.eval() first")
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    checks.check_weights(parameters)
    checks.check_weights(parameters | {name: b for name, b in model.named_buffers() if b.dtype.is_floating_point})


def _check_same_architecture(network: nn.Module, model: nn.Module, name: str) -> None:
    found, wanted = ({key: t.shape for key, t in m.state_dict().items()} for m in (network, model))
    if differing := [key for key in {**wanted, **found} if wanted.get(key) != found.get(key)]:
        raise ValueError(f"{name} is of another architecture than the model: '{differing[0]}' differs")
