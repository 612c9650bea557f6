"""The paper's sample sizes and per-class subsets (Papyan 2020, Appendix D; the author's released code)."""

from __future__ import annotations

import numpy as np


def paper_sizes(largest: int) -> list[int]:
    """The paper's 20 log-spaced numbers of examples per class, from 10 to `largest` (5000; 500 for CIFAR100).

    They are rounded down, by a floor that survives rounding errors: 10**log10(5000) is a little less than 5000.
    """
    return [int(size) for size in np.floor(np.logspace(1, np.log10(largest), 20) * (1 + 1e-12))]


def choose_per_class(labels: np.ndarray, n_per_class: int, *, classes: int, seed: int) -> np.ndarray:  # [N] -> [n C]
    """Indices of the author's subset: class after class, `n_per_class` examples drawn without replacement.

    The author's code runs `np.random.seed(0); np.random.choice(indices, n, replace=False)` for each class in order, so
    the generator is seeded anew for each class. `RandomState` is that generator without the global state.
    Because it draws by permuting, the subsets of one data set are nested: a smaller one is the beginning of a larger.

    Raises:
        ValueError: a class has fewer examples than asked for, or none are asked for.
    """
    if n_per_class < 1:
        raise ValueError(f"n_per_class={n_per_class}: at least one example per class is needed")
    members = [np.flatnonzero(labels == c) for c in range(classes)]
    rarest = min(range(classes), key=lambda c: len(members[c]))
    if len(members[rarest]) < n_per_class:
        raise ValueError(f"n_per_class={n_per_class}, but class {rarest} has only {len(members[rarest])} examples")
    return np.concatenate([np.random.RandomState(seed).choice(i, n_per_class, replace=False) for i in members])
