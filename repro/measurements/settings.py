"""What the settings of measurements share: how they are made from names and values, and those of every Lanczos run.

The settings of a measurement are a dataclass `Settings` beside its function; each field says what it is and how sure
the paper's value is: (certain), (likely), (guess), or (ours) where the paper has none. The same defaults hold on the
command line, in an experiment (`measurements.<name>.<setting>`), and in the library.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar, get_args

from repro.linalg.operator import LinearOperator
from repro.linalg.spectrum import LanczosSpectrum, spectrum

S = TypeVar("S")

EXACT_LIMIT = 6000  # examples times classes up to which G is taken by its exact spectrum: minutes of two cores (ours)


def make_settings(kind: type[S], given: Mapping[str, Any], measurement: str) -> S:
    """The settings of a measurement, `given` by name in place of the defaults.

    Raises:
        TypeError: a name is none of its settings'; the sentence says the nearest, and all there are.
        ValueError: a value that a setting cannot have.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=2)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise TypeError(f"{measurement} has no setting {name!r}: {hint}it has {', '.join(known) or 'none'}")
    return kind(**given)


def check_choice(name: str, value: str, choices: Any) -> None:
    """Refuse a word that is none of those a Literal lists.

    Raises:
        ValueError: naming them.
    """
    if value not in get_args(choices):
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, get_args(choices)))}")


@dataclass
class LanczosSettings:
    """How a spectrum is estimated; see `repro.linalg.spectrum.spectrum`."""

    steps: int | None = None  # Lanczos steps M of each probe; None: `usual_steps`, or 2 C where that is more
    probes: int = 1  # nvec of Algorithm 3, starting vectors that are averaged (certain)
    tolerance: float = 1e-3  # relative residual at which an eigenpair counts as converged (ours)
    basis_bytes: float = 8e9  # memory of the Lanczos basis, M x P numbers; beyond it the run restarts (ours)
    graph_bytes: float = 4e9  # memory for the graphs that the matrix keeps between its products (ours)
    seed: int = 0  # of the probes (ours)

    usual_steps: ClassVar[int] = 128  # likely the paper's M for linear spectra

    def estimate(self, A: LinearOperator, *, outliers: int | None, classes: int) -> LanczosSpectrum:
        """The spectrum of A with its `outliers` leading eigenpairs (None: one for each class)."""
        return spectrum(
            A,
            k=classes if outliers is None else outliers,
            steps=max(self.usual_steps, 2 * classes) if self.steps is None else self.steps,
            probes=self.probes,
            tolerance=self.tolerance,
            memory_budget=int(self.basis_bytes),
            seed=self.seed,
        )


def check_count(name: str, value: int | None, *, least: int) -> None:
    """Refuse a number that is too small to be a count of something.

    Raises:
        ValueError: naming the setting.
    """
    if value is not None and value < least:
        raise ValueError(f"{name} is {value}; it must be at least {least}")
