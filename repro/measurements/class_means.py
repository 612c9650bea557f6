"""Inner products of class and cross-class means, weighted and not (Papyan 2020, Figure 2; Papyan 2019, t-SNE)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from repro.curvature.checks import class_list
from repro.curvature.cross_class import SPANNED_PARTS
from repro.curvature.many_classes import class_gram
from repro.measurements.settings import MemorySettings
from repro.watch import current

if TYPE_CHECKING:
    from repro.network import Network


VERSION = 1


@dataclass
class Settings(MemorySettings):
    """What may be held in memory (CIFAR100: of 10 000 means of 28 million parameters), and what is stored."""

    # Where the C² means are more than so many their C⁴ inner products are not stored, only those of the C class means
    # alone (ours; CIFAR100: 0.8 GB each time)
    stored_means: int = 2500
    classes: list[int] | None = None  # those whose means are taken, with all C logits in the loss; None: all (ours)

    def __post_init__(self) -> None:
        self.classes = class_list(self.classes)


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
        others, companion_others [K]: with K chosen `classes` alone, what the labels not chosen would add to each row
            of the weights. C above is then K, in the order of `classes`, and cross_part has K (K − 1) eigenvalues; the
            means are those of all C classes at (c, c') with both chosen, see `ClassStructure`.
    """
    chosen, budget = settings.classes, settings.means_bytes(network)
    network.check_every_class(chosen)

    def of_decomposition(prefix: str) -> dict[str, np.ndarray]:
        gram = class_gram(
            network.model,
            network.batches(),
            parameters=network.parameters,
            memory_budget=budget,
            companion=bool(prefix),
            classes=chosen,
        )
        found = {"class_means": gram.class_means(), "weights": gram.weights}
        if gram.weights.numel() <= settings.stored_means:
            found["means"] = gram.means()
        if gram.others is not None:
            found["others"] = gram.others
        found |= {f"{part}_part": gram.eigenvalues(part) for part in SPANNED_PARTS}
        return {f"{prefix}{name}": value.cpu().numpy() for name, value in found.items()}

    arrays = current().found
    for prefix in ("", "companion_"):
        arrays |= current().once(partial(of_decomposition, prefix), planned=False)
    return arrays
