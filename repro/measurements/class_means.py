"""Inner products of class and cross-class means, weighted and not (Papyan 2020, Figure 2; Papyan 2019, t-SNE)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from repro.curvature.cross_class import SPANNED_PARTS
from repro.curvature.many_classes import class_gram
from repro.measurements.settings import MemorySettings

if TYPE_CHECKING:
    from repro.network import Network


VERSION = 1


@dataclass
class Settings(MemorySettings):
    """What may be held in memory (CIFAR100: of 10 000 means of 28 million parameters), and what is stored."""

    # Where the C² means are more than so many their C⁴ inner products are not stored, only those of the C class means
    # alone (ours; CIFAR100: 0.8 GB each time)
    stored_means: int = 2500


def measure(network: Network, settings: Settings) -> dict[str, np.ndarray]:
    """Gram matrices of the means on the training set, of the paper and of its companion, in the order (c, c').

    Returns:
        class_means [C, C]: inner products of g_c.
        means [C², C²]: inner products of g_c at (c, c) and g_{c,c'} at (c, c'), row and column c C + c'; left out
            where there are more than `stored_means`.
        weights [C, C]: w_{c,c'}, which sum to one.
        class_part [C], cross_part [C (C − 2)], same_part [C]: eigenvalues of the parts of G, descending.
        companion_class_means, companion_means, companion_class_part, ...: the same of the companion's unweighted
            δ_c, δ_{c,c'}; its class_part is G1, cross_part G2, same_part G0; companion_weights [C, C] is n_c/N.
    """
    network.check_every_class()
    arrays: dict[str, np.ndarray] = {}
    budget = settings.means_bytes(network)
    for prefix in ("", "companion_"):
        gram = class_gram(
            network.model,
            network.batches(),
            parameters=network.parameters,
            memory_budget=budget,
            companion=bool(prefix),
        )
        arrays[f"{prefix}class_means"] = gram.class_means().cpu().numpy()
        if len(gram.rows) <= settings.stored_means:
            arrays[f"{prefix}means"] = gram.means().cpu().numpy()
        arrays[f"{prefix}weights"] = gram.weights.cpu().numpy()
        for part in SPANNED_PARTS:
            arrays[f"{prefix}{part}_part"] = gram.eigenvalues(part).cpu().numpy()
    return arrays
