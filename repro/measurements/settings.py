"""What the settings of measurements share: how they are made from names and values, and those of every Lanczos run.

The settings of a measurement are a dataclass `Settings` beside its function; each field says what it is and how sure
the paper's value is: (certain), (likely), (guess), or (ours) where the paper has none. The same defaults hold on the
command line, in an experiment (`measurements.<name>.<setting>`), and in the library.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping, Sized
from dataclasses import dataclass, fields
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

from repro.linalg.operator import LinearOperator, Stopped
from repro.linalg.spectrum import spectrum, usual_products
from repro.spectra.record import Spectrum
from repro.watch import current

if TYPE_CHECKING:
    from repro.network import Network

S = TypeVar("S")
log = logging.getLogger(__name__)

EXACT_LIMIT = 6000  # examples times classes up to which G is taken by its exact spectrum: minutes of two cores (ours)
MEMORY = 8 << 30  # bytes of a function that takes a memory_budget (ours)
PROOF_VECTORS = 16  # vectors [P] that products take to prove themselves; in float64 they are twice as long
WORK_VECTORS = 6  # those that they and Lanczos take afterwards


def make_settings(kind: type[S], given: Mapping[str, Any], measurement: str) -> S:
    """The settings of a measurement, `given` by name in place of the defaults.

    Raises:
        TypeError: a name is none of its settings'; the sentence says the nearest, and all there are. No number where
            one is needed, or no list.
        ValueError: a value that a setting cannot have.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=2)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise TypeError(f"{measurement} has no setting {name!r}: {hint}it has {', '.join(known) or 'none'}")
        _check_type(name, given[name], get_type_hints(kind)[name])
    return kind(**given)


def _check_type(name: str, value: Any, hint: Any) -> None:
    kinds = [get_origin(kind) or kind for kind in (get_args(hint) if get_origin(hint) is UnionType else (hint,))]
    if value is None and NoneType in kinds:
        return
    for kind, accepted, needed in (
        (float, Real, "a number"),
        (int, Integral, "a whole number"),
        (list, Sized, "a list"),
    ):
        if kind in kinds:
            if not isinstance(value, accepted) or isinstance(value, bool | str):
                raise TypeError(f"{name} is {value!r}: {needed} is needed")
            return


def check_choice(name: str, value: str, choices: Any) -> None:
    """Refuse a word that is none of those a Literal lists.

    Raises:
        ValueError: naming them.
    """
    if value not in get_args(choices):
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, get_args(choices)))}")


class Memory(NamedTuple):
    """How the memory of a measurement is divided, in bytes."""

    basis: int  # of Lanczos
    graphs: int  # that a matrix keeps between its products


@dataclass
class MemorySettings:
    """How much memory a measurement may take; a budget decides time, and no result beyond rounding and tolerances."""

    # Of all that is held at a time beside the network, its data and one batch in work: Lanczos basis, eigenvectors,
    # graphs, class and cross-class means (ours). What does not fit is taken in slices, by restarts, or computed anew
    memory_bytes: float = 8e9

    def classes_of(self, network: Network) -> int:
        """Of how many classes the measurement is: of all, unless it has a setting `classes` and some were chosen."""
        chosen = getattr(self, "classes", None)
        return network.classes if chosen is None else len(chosen)

    def means_bytes(self, network: Network) -> int:
        """What is left for class and cross-class means; they are taken in slices.

        Raises:
            ValueError: nothing is left.
        """
        vector, C, P = vector_bytes(network), self.classes_of(network), network.dim
        around, means = PROOF_VECTORS * vector, C**2 * vector
        if P < C**2:  # the means are kept whole, and a copy of them while P x P matrices are made
            result = kept = means + 16 * P**2
            least = around + 9 / 4 * means + 16 * P**2
        else:  # inner products of all means, and as much again while they are added up, twice for eigenvalues
            result, kept = 32 * C**4, 16 * C**4
            least = around + max(kept + 10 * C**2, result)
        most = max(least, min(around + 5 / 4 * means + kept, self.memory_bytes))
        self.announce(f"{C}² class and cross-class means of {P} parameters, and their inner products", most, least)
        return int(4 / 5 * (self.memory_bytes - around - kept))  # a fifth to multiply them

    def lanczos_memory(self, vector: int, *, steps: int, pairs: int, held: float = 0, matrix: str = "") -> Memory:
        """Divide the memory between a Lanczos basis and the graphs of the matrix.

        Args:
            vector: bytes of one vector [P].
            steps: rows of the basis, at most; fewer mean restarts.
            pairs: eigenvectors that are taken from it.
            held: vectors that are there all the while.
            matrix: whose they are, for people.

        Raises:
            ValueError: the memory does not hold `pairs` eigenvectors and what finds them.
        """
        working = max(PROOF_VECTORS, WORK_VECTORS + pairs)  # the proof is over when eigenvectors are made
        around = (working + held) * vector
        fewest = min(pairs + 2, steps)
        left = self.memory_bytes - around
        basis = min(steps * vector, max(left * 3 / 4, fewest * vector))
        graphs = max(0, left - basis)
        rows = int(basis // vector)
        what = f"{f'of {matrix} ' if matrix else ''}a Lanczos basis of {rows} vectors of {vector / 1e9:.3g} GB"
        self.announce(what, around + basis + graphs, around + fewest * vector)
        return Memory(int(basis), int(graphs))

    def announce(self, what: str, most: float, least: float | None = None) -> None:
        """Say before it starts what a measurement holds at most.

        Args:
            least: bytes without which it cannot be done; by default `most`.

        Raises:
            ValueError: that is more than `memory_bytes`.
        """
        name, given = type(self).__module__.rpartition(".")[2], f"memory_bytes = {self.memory_bytes:.3g}"
        least = most if least is None else least
        fewer = "ask for some of the classes with classes=[...], " if hasattr(self, "classes") else ""
        if least > self.memory_bytes:
            raise ValueError(
                f"{name} needs {least / 1e9:.3g} GB of memory at least ({what}), more than its {given}: raise"
                f" measurements.{name}.memory_bytes, {fewer}or measure a smaller network"
            )
        log.info("%s takes at most %.3g GB of its %s: %s", name, most / 1e9, given, what)


def vector_bytes(network: Network) -> int:
    """Bytes of one number for each of the parameters that curvature is taken by."""
    return network.dim * next(network.model.parameters()).element_size()


@dataclass
class LanczosSettings(MemorySettings):
    """How a spectrum is estimated; see `repro.linalg.spectrum.spectrum`."""

    steps: int | None = None  # Lanczos steps M of each probe; None: `usual_steps`, or 2 C where that is more
    probes: int = 1  # nvec of Algorithm 3, starting vectors that are averaged (certain)
    tolerance: float = 1e-3  # relative residual at which an eigenpair counts as converged (ours)
    seed: int = 0  # of the probes (ours)

    usual_steps: ClassVar[int] = 128  # likely the paper's M for linear spectra

    def lanczos_steps(self, classes: int) -> int:
        """Steps of each probe."""
        return max(self.usual_steps, 2 * classes) if self.steps is None else self.steps

    def memory(self, network: Network, *, outliers: int | None, held: int = 0, matrix: str = "") -> Memory:
        """How the memory is divided for spectra of a network with `outliers` eigenpairs (None: one for each class)."""
        C = self.classes_of(network)
        pairs, steps = C if outliers is None else outliers, self.lanczos_steps(C)
        return self.lanczos_memory(vector_bytes(network), steps=steps, pairs=pairs, held=held, matrix=matrix)

    def plan(self, network: Network, spectra: int, memory: Memory) -> None:
        """Say to whoever watches how many spectra will be estimated."""
        products = usual_products(self.lanczos_steps(self.classes_of(network)), self.probes)
        current().plan(spectra, products, basis=memory.basis, vector=vector_bytes(network))

    def estimate(
        self, A: LinearOperator, *, outliers: int | None, classes: int, memory: Memory, whole: bool = False
    ) -> Spectrum:
        """The spectrum of A with its `outliers` leading eigenvalues (None: one for each class); vectors are let go.

        Raises:
            Stopped: it was stopped before there was anything, or with `whole` before it was finished.
        """
        watch = current()

        def work() -> dict[str, np.ndarray]:
            found = spectrum(
                watch.over(A),
                k=classes if outliers is None else outliers,
                steps=self.lanczos_steps(classes),
                probes=self.probes,
                tolerance=self.tolerance,
                memory_budget=memory.basis,
                seed=self.seed,
                settled=watch.settled,
            )
            return found.arrays("found")

        found = Spectrum.from_arrays(watch.once(work), "found")
        if whole and watch.stopped is not None:
            raise Stopped
        return found


def check_count(name: str, value: int | None, *, least: int) -> None:
    """Refuse what is no count of something, or too small a one.

    Raises:
        TypeError: it is no whole number; naming the setting.
        ValueError: it is too small.
    """
    _check_type(name, value, int | None)
    if value is not None and value < least:
        raise ValueError(f"{name} is {value}; it must be at least {least}")
