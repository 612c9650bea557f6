"""G and its parts over the epochs of training (Papyan 2020, Section 6, Figure 6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from torch import nn

from repro.curvature.class_parts import ClassParts
from repro.curvature.cross_class import SPANNED_PARTS
from repro.curvature.gauss_newton import GaussNewton
from repro.curvature.many_classes import class_gram
from repro.measurements.settings import LanczosSettings, check_count
from repro.spectra.record import stack
from repro.watch import current

if TYPE_CHECKING:
    from repro.network import Network


VERSION = 3


@dataclass
class Settings(LanczosSettings):
    """Which checkpoints, and how their spectra are estimated."""

    # How many of the checkpoints, evenly spread over those kept (log-spaced epochs, the first and the last among them);
    # None: all (ours)
    epochs: int | None = None

    usual_steps: ClassVar[int] = 48  # the paper's log spectra take 2048 (likely), on a few epochs

    def __post_init__(self) -> None:
        check_count("epochs", self.epochs, least=1)


def measure(network: Network, settings: Settings) -> dict[str, np.ndarray]:
    """Spectra of G and of G_within, and the exact eigenvalues of the other parts, at checkpoints of the run.

    C eigenpairs of G are taken out of its spectrum and none out of that of G_within.

    Returns, T checkpoints:
        epochs [T]: the epochs they were taken after; 0 is the initialisation.
        loss [T]: mean cross-entropy on the training set, in eval mode.
        class_part [T, C], cross_part [T, C (C − 2)], same_part [T, C]: exact eigenvalues of the parts, descending.
        <s>_nodes, <s>_weights [T, probes, M], <s>_dim, for <s> = gauss_newton and within: quadrature of their spectra.
        <s>_eigenvalues, _residuals, _converged, _deflated [T, k]: the largest, k = C of G and none of G_within.
        own_share [T, C]: mean probability of the own class, w_{c,c} / Σ_{c'} w_{c,c'}.

    Where a Lanczos run ends early (a matrix that underflows, say) rows are filled up with zeros, not converged. Where
    the measurement is stopped, the checkpoints before the one it was at are there.
    """
    chosen, C = spread_epochs(network, settings.epochs), network.classes
    means, memory = settings.means_bytes(network), settings.memory(network, outliers=None, matrix="G")
    network.check_every_class()
    settings.plan(network, 2 * len(chosen), memory)

    def of_means(model: nn.Module) -> dict[str, np.ndarray]:
        gram = class_gram(model, network.batches(), parameters=network.parameters, memory_budget=means)
        found = {f"{part}_part": gram.eigenvalues(part).cpu().numpy() for part in SPANNED_PARTS}
        return found | {"own_share": (gram.weights.diagonal() / gram.weights.sum(dim=1)).cpu().numpy()}

    def at_epoch(epoch: int) -> dict[str, np.ndarray]:
        model = network.at_epoch(epoch)
        found = current().once(partial(of_means, model), planned=False)
        G = network.matrix(GaussNewton, memory_budget=memory.graphs, model=model)
        of_G = settings.estimate(G, outliers=None, classes=C, memory=memory, whole=True)
        within = ClassParts(G).without(SPANNED_PARTS)
        of_within = settings.estimate(within, outliers=0, classes=C, memory=memory, whole=True)
        return found | {"loss": np.array(G.loss)} | of_G.arrays("gauss_newton") | of_within.arrays("within")

    return epoch_by_epoch(chosen, at_epoch)


def spread_epochs(network: Network, count: int | None) -> list[int]:
    """At most `count` of the network's checkpoints, evenly spread, the first and the last among them.

    Raises:
        ValueError: there are no checkpoints.
    """
    kept = network.epochs
    if not kept:
        raise ValueError(f"{network.cell} has no checkpoints, and this measurement follows a network over its training")
    if count is None:
        return kept
    return [kept[i] for i in np.unique(np.linspace(0, len(kept) - 1, count).round().astype(int))]


def epoch_by_epoch(epochs: Sequence[int], describe: Callable[[int], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """What `describe` says of each checkpoint, along a first axis [T] as `stack` does it, and the epochs [T]."""
    arrays, rows = current().found, list[dict[str, np.ndarray]]()
    for count, epoch in enumerate(epochs, start=1):
        rows.append(describe(epoch))
        arrays |= stack(rows) | {"epochs": np.array(epochs[:count])}
    return arrays
