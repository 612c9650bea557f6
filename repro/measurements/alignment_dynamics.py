"""Alignment over the epochs of training: top eigenvectors of G against the class means (ours; the paper has none)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from repro.curvature.class_parts import ClassParts
from repro.curvature.cross_class import SPANNED_PARTS
from repro.curvature.gauss_newton import GaussNewton
from repro.curvature.many_classes import class_gram
from repro.measurements.alignment import EigenpairSettings, cosines
from repro.measurements.dynamics import epoch_by_epoch, spread_epochs
from repro.measurements.settings import check_count
from repro.watch import current

if TYPE_CHECKING:
    from repro.network import Network


VERSION = 2


@dataclass
class Settings(EigenpairSettings):
    """Which checkpoints, and how eigenpairs are found."""

    epochs: int | None = None  # how many of the checkpoints, as in `dynamics`; None: all (ours)

    def __post_init__(self) -> None:
        check_count("epochs", self.epochs, least=1)


def measure(network: Network, settings: Settings) -> dict[str, np.ndarray]:
    """The C − 1 largest eigenpairs of G on the training set against span{g_c}, at checkpoints of the run.

    Returns, T checkpoints:
        epochs [T]: the epochs they were taken after; 0 is the initialisation.
        eigenvalues, residuals (absolute), converged [T, C − 1].
        overlap_class [T, C − 1]: squared length of the projection of each eigenvector onto span{g_c}, in [0, 1].
        class_cosines [T, C − 1]: cosines of the principal angles between the eigenvectors and span{g_c}.
        share_<part> [T, C − 1]: u^T part u / λ for part = class, cross, same; what they lack of one is G_within's.
        dim: P; a random vector overlaps with C directions by C / P.

    Where a Lanczos run ends early rows are filled up with zeros, not converged. Where the measurement is stopped, the
    checkpoints before the one it was at are there.

    Raises:
        ValueError: the run has no checkpoints, or the class means are zero at one of them.
    """
    chosen, C = spread_epochs(network, settings.epochs), network.classes
    means, memory = settings.means_bytes(network), settings.memory(network, C - 1)
    network.check_every_class()
    settings.plan(network, len(chosen), memory)

    def at_epoch(epoch: int) -> dict[str, np.ndarray]:
        model, data = network.at_epoch(epoch), network.batches()
        gram = class_gram(model, data, parameters=network.parameters, memory_budget=means)
        G = network.matrix(GaussNewton, memory_budget=memory.graphs, model=model)
        pairs, parts = settings.largest(G, C - 1, classes=C, memory=memory), ClassParts(G)
        seen = gram.orthonormal("class", torch.finfo(G.dtype).eps).T @ parts.coordinates(pairs.vectors)
        found = {field: getattr(pairs, field) for field in ("eigenvalues", "residuals", "converged")}
        contributions = parts.contributions(pairs.vectors)
        found |= {f"share_{part}": contributions[part] / pairs.eigenvalues for part in SPANNED_PARTS}
        found["overlap_class"] = seen.square().sum(dim=0)
        found["class_cosines"] = cosines(seen)
        return {key: value.cpu().numpy() for key, value in found.items()} | {"dim": np.array(G.dim)}

    return epoch_by_epoch(chosen, lambda epoch: current().once(partial(at_epoch, epoch)))
