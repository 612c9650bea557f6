"""Curvature during training: two lines in any loop.

track = repro.Tracker(data)
for epoch in range(epochs):
    ...                                       # train as ever
    track(model, epoch)                       # the model is left as it was
track.frame(); track.plot().savefig("curvature.png")
"""

from __future__ import annotations

import inspect
import logging
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
)

from repro.curvature.batches import is_batch
from repro.curvature.class_parts import class_mean_span
from repro.curvature.evaluation import own_precision
from repro.curvature.gauss_newton import GaussNewton
from repro.curvature.hessian import Hessian
from repro.curvature.inputs import as_tensors, take
from repro.figures.tracking import draw_tracking
from repro.linalg.eigenpairs import top_eigenpairs
from repro.linalg.moments import complement_trace
from repro.measurements.settings import check_count
from repro.network import Data, Network

log = logging.getLogger(__name__)


class Tracker:
    """Sharpness, outliers, trace and class overlap of the Hessian of a network, epoch by epoch.

    A call takes `max_products` products with the Hessian of `examples` examples at most, about a third as many to
    confirm the eigenvalues, `probes` for the trace, and a gradient for each class; one product costs about two
    gradients. Memory: `max_products` vectors [P], or what `memory_budget` allows.

    Nothing else is touched: train mode, gradients, requires_grad, buffers and random numbers are afterwards what they
    were before, so that a tracked training is the same training.

    >>> import torch, repro
    >>> from torch import nn
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    >>> x, y = torch.randn(30, 4), torch.arange(30) % 3
    >>> optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    >>> track = repro.Tracker((x, y), every=5)
    >>> for epoch in range(11):
    ...     nn.functional.cross_entropy(model(x), y).backward()
    ...     _ = optimiser.step(), optimiser.zero_grad()
    ...     track(model, epoch)
    >>> track.frame()["epoch"].tolist()
    [0, 5, 10]
    """

    def __init__(
        self,
        data: Data,
        *,
        every: int = 1,
        examples: int = 1000,
        outliers: int | None = None,
        tolerance: float = 1e-2,
        max_products: int | None = None,
        probes: int = 10,
        memory_budget: int = 4 << 30,
        seed: int = 0,
        **network: Any,
    ):
        """Nothing is read yet: data come from the first call, and stay on the model's device.

        Args:
            data: what curvature is averaged over, as for `repro.spectrum`.
            every: epochs that are not multiples of it are passed over.
            examples: how many of a data set, or of tensors, are taken, evenly spread over them; of a loader with a
                sampler of its own, over what that draws. A list of batches is taken whole.
            outliers: how many of the largest eigenvalues; None: C, one for each class.
            tolerance: relative residual at which an eigenvalue counts as converged; its error is of second order in it.
            max_products: products that the search for them may take; None: 60, or 4 for each outlier.
            probes: random vectors for the rest of the trace.
            memory_budget: bytes for the basis of the search, and as much again for graphs kept between products.
            network: further arguments of `repro.Network`.

        Raises:
            ValueError: a count below one, or fewer than two probes.
            TypeError: an argument that neither this nor `repro.Network` has, or a count that is no whole number.
        """
        inspect.signature(Network).bind(None, data, **network)
        for name, value, least in (("every", every, 1), ("examples", examples, 1), ("outliers", outliers, 1)):
            check_count(name, value, least=least)
        check_count("probes", probes, least=2)
        check_count("max_products", max_products, least=2)
        self.every, self.examples, self.outliers = every, examples, outliers
        self.tolerance, self.max_products, self.probes = tolerance, max_products, probes
        self.memory_budget, self.seed, self.network = memory_budget, seed, network
        self._data: Any = data
        self._read = False
        self._rows: list[dict[str, float]] = []
        self._said: set[str] = set()

    def __call__(self, model: nn.Module, epoch: int) -> None:
        """Measure the model as it is now, if `epoch` is one of those wanted.

        Raises:
            TypeError: the epoch is no whole number, or the model no nn.Module.
            ValueError: at the first call, a model or data that `repro.Network` refuses. Later, when a training has
                diverged for example, the reason is logged and the row is of NaN: the training goes on.
        """
        if not isinstance(epoch, Integral) or not isinstance(model, nn.Module):
            given = f"{type(model).__name__} and {epoch!r}"
            raise TypeError(f"a torch.nn.Module and a whole number are needed, not {given}")
        if epoch % self.every:
            return
        begin = time.perf_counter()
        row: dict[str, float] = {"epoch": epoch}
        with undisturbed(model):
            try:
                row |= self._measured(model)
            except ValueError as error:
                if not self._rows:
                    raise
                log.warning("epoch %s is not measured: %s", epoch, error)
        self._rows.append(row | {"seconds": time.perf_counter() - begin})

    def frame(self) -> pd.DataFrame:
        """A row for each epoch measured.

        epoch; loss, of the examples, in eval mode; sharpness, the largest eigenvalue; outlier_1 ... outlier_k, the k
        largest; converged, how many of these have; trace and trace_error, its standard error; class_overlap, the mean
        squared length of the projections of the k eigenvectors onto the span of the class means g_c of the gradients,
        1 if they lie in it and C / P for random vectors, and NaN for another loss than the cross-entropy or where the
        means do not fit `memory_budget`; products with the Hessian; seconds.
        """
        return pd.DataFrame(self._rows)

    def plot(self) -> Figure:
        """Outliers, trace and class overlap by epoch, one panel each.

        Raises:
            ValueError: no epoch has been measured.
        """
        if not self._rows:
            raise ValueError("no epoch has been measured yet: call the tracker with the model and the epoch first")
        return draw_tracking(self.frame())

    def _measured(self, model: nn.Module) -> dict[str, float]:
        network = self._checked(model)
        A = network.matrix(Hessian, memory_budget=self.memory_budget)
        k = min(self.outliers or network.classes, A.dim)
        pairs = top_eigenpairs(
            A,
            k,
            tolerance=self.tolerance,
            max_products=max(k, self.max_products or max(60, 4 * k)),
            memory_budget=self.memory_budget,
            seed=self.seed,
            by="largest",
        )
        values = pairs.eigenvalues.double()
        rest = complement_trace(A, pairs.vectors, self.probes, seed=self.seed)
        row = {"loss": A.loss, "sharpness": float(values[0])}
        row |= {"trace": float(values.sum().cpu() + rest.value), "trace_error": float(rest.error)}
        row |= {"class_overlap": self._overlap(network, pairs.vectors), "converged": int(pairs.converged.sum())}
        return row | {"products": A.products} | {f"outlier_{i}": float(value) for i, value in enumerate(values, 1)}

    def _checked(self, model: nn.Module) -> Network:
        """The model with its data, which are read at the first call."""
        network = Network(model, self._data if self._read else spread(self._data, self.examples), **self.network)
        self._data, self._read = network.train, True
        return network

    def _overlap(self, network: Network, U: Tensor) -> float:  # [P, K]
        """Mean squared length of the projections of orthonormal columns onto span{g_c}."""
        if not network.has_class_structure:
            return self._without_overlap("it is of the softmax cross-entropy of class labels")
        C, N = network.classes, len(network.train.labels)
        needed = C * (len(U) + N * C) * U.element_size()
        if needed > self.memory_budget:
            return self._without_overlap(f"the {C} class means take {needed / 1e9:.3g} GB, above memory_budget")
        G = network.matrix(GaussNewton, memory_budget=0)
        return float((class_mean_span(G).T @ U).square().sum(dim=0).mean())

    def _without_overlap(self, why: str) -> float:
        if why not in self._said:
            self._said.add(why)
            log.warning("class_overlap is left out: %s", why)
        return float("nan")


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """The model in eval mode and in the precision of its weights, with gradients allowed; afterwards all is as before.

    Random numbers of torch, NumPy and Python that are drawn inside are not missing after it.
    """
    modes = {module: module.training for module in model.modules()}
    devices = {tensor.device for tensor in model.parameters()}
    gpus = [device for device in devices if device.type == "cuda"]
    python, numpy = random.getstate(), np.random.get_state()
    own = [module._buffers for module in model.modules()]
    held = [(at, name, buffer, buffer.clone()) for at in own for name, buffer in at.items() if buffer is not None]
    kind = "cuda" if gpus else "cpu"
    try:
        with torch.random.fork_rng(gpus), torch.inference_mode(False), torch.enable_grad(), own_precision(kind):
            model.eval()
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        with torch.no_grad():
            for at, name, buffer, before in held:  # a forward pass may count, or average, in eval mode too
                at[name] = buffer
                if not torch.equal(buffer, before):
                    buffer.copy_(before)
        for module, training in modes.items():
            module.training = training


def spread(data: Any, examples: int) -> Any:
    """At most so many examples of a data set, a loader or a batch, evenly spread; other data as they are."""
    if isinstance(data, IterableDataset) or isinstance(getattr(data, "dataset", None), IterableDataset):
        return data
    if isinstance(data, DataLoader) and data.batch_sampler is not None and hasattr(data.dataset, "__len__"):
        drawn = _drawn(data)
        chosen = Subset(data.dataset, [drawn[i] for i in _places(len(drawn), examples)])
        return DataLoader(chosen, batch_size=data.batch_size or 64, collate_fn=data.collate_fn)
    if isinstance(data, Dataset) and hasattr(data, "__len__"):
        return Subset(data, _places(len(data), examples))
    if not is_batch(data):
        return data
    batch = as_tensors(data)
    total, *others = (len(leaf) for leaf in tree_leaves(batch))
    if any(other != total for other in others):
        return data  # it is refused when it is read
    return take(batch, _places(total, examples))


def _drawn(loader: DataLoader[Any]) -> Sequence[int]:
    """Indices into its data set that a loader gives: all of them, in order, unless it has a sampler of its own."""
    by_default = type(loader.batch_sampler) is BatchSampler
    if by_default and type(loader.sampler) in (SequentialSampler, RandomSampler):
        return range(len(loader.dataset))  # type: ignore[arg-type]
    both: list[Any] = [loader.sampler, loader.batch_sampler]
    samplers = [sampler for sampler in both if getattr(sampler, "generator", None)]
    before = [sampler.generator.get_state() for sampler in samplers]
    given = chain.from_iterable(loader.batch_sampler)  # type: ignore[arg-type]
    drawn = list(islice(given, len(loader.dataset)))  # type: ignore[arg-type]  # some samplers never end
    for sampler, state in zip(samplers, before):
        sampler.generator.set_state(state)
    return drawn


def _places(total: int, wanted: int) -> list[int]:
    return np.unique(np.arange(min(wanted, total)) * total // min(wanted, total)).tolist() if total else []
