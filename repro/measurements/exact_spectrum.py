"""Every eigenvalue of G, exactly, with the part of G that each comes from (Papyan 2020, Section 6, without Lanczos)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from repro.curvature.exact import dense_memory, exact_spectrum
from repro.measurements.dynamics import spread_epochs
from repro.measurements.settings import EXACT_LIMIT, MemorySettings, check_count, vector_bytes
from repro.watch import current

if TYPE_CHECKING:
    from repro.network import Network


VERSION = 1

log = logging.getLogger(__name__)


@dataclass
class Settings(MemorySettings):
    """Up to which size, in how much memory, and at which checkpoints."""

    # Examples times classes N C above which nothing is computed, and figures are drawn from Lanczos instead: time grows
    # with (N C)^3, a minute of a core at 5000; a GPU does 20 000 (ours)
    limit: int = EXACT_LIMIT
    # At how many of the checkpoints, evenly spread over those kept, the last network among them (ours)
    epochs: int = 5
    test_per_class: int = 10  # the first so many examples of each class of the test set, measured too; 0: none (ours)

    usual_steps: ClassVar[int] = 100  # for its cost, roughly: that of as many products with G

    def __post_init__(self) -> None:
        check_count("limit", self.limit, least=1)
        check_count("epochs", self.epochs, least=1)
        check_count("test_per_class", self.test_per_class, least=0)

    def serves(self, examples: int, classes: int) -> bool:
        """Whether data of that size are within the limit."""
        return examples * classes <= self.limit


def measure(network: Network, settings: Settings) -> dict[str, np.ndarray]:
    """The exact spectrum of G on the training set, its parts' and its knockouts', at checkpoints and on test data.

    Returns:
        every array of `repro.spectra.exact.ExactSpectrum`, of the network on its training set;
        epoch<e>_<array>: the same at earlier checkpoints, e the epoch, without knockouts;
        test_<array>: of the network on `test_per_class` examples of each class of the test set, without knockouts;
        epochs [T]: the epochs of the checkpoints, the network's own as the last; empty without checkpoints.
        too_large: N C where it is above `limit`, and then nothing else.
    """
    N, C = len(network.train.labels), network.classes
    if not settings.serves(N, C):
        log.warning("%d examples of %d classes are more than exact_spectrum.limit = %d", N, C, settings.limit)
        return {"too_large": np.array(N * C)}
    network.check_every_class()
    size = min(N * (C - 1), network.dim)
    least = dense_memory(size, C, network.train.labels.device)
    most = min(settings.memory_bytes, least + size * vector_bytes(network))
    settings.announce(f"G from a {size} x {size} matrix", max(most, least), least)
    exact = partial(exact_spectrum, parameters=network.parameters, memory_budget=int(settings.memory_bytes))
    arrays = current().found

    def add(prefix: str, *network_and_data: Any, **knockouts: Any) -> None:
        found = current().once(lambda: dict(exact(*network_and_data, **knockouts).arrays), planned=False)
        arrays.update({f"{prefix}{name}": value for name, value in found.items()})

    add("", network.model, network.batches())
    epochs = spread_epochs(network, settings.epochs) if network.epochs and settings.epochs > 1 else network.epochs[-1:]
    arrays["epochs"] = np.array(epochs[-1:], dtype=int)
    for count, epoch in enumerate(epochs[:-1], start=1):
        add(f"epoch{epoch}_", network.at_epoch(epoch), network.batches(), knockouts=())
        arrays["epochs"] = np.array([*epochs[:count], epochs[-1]], dtype=int)
    if network.test is not None and settings.test_per_class:
        some = network.test.first_of_each_class(settings.test_per_class).batches(network.batch_size)
        add("test_", network.model, some, knockouts=())
    return arrays
