"""Spectra of deep classifiers and the class/cross-class structure behind them (Papyan, JMLR 2020).

For a network of your own: spectrum, knockouts, exact_spectrum, class_structure, measure, Network, and load for what was
saved (see `repro.api`); top for leading eigenvalues alone, moments for trace, diagonal and Frobenius norm (see
`repro.matrix`); Tracker for curvature during training (see `repro.tracker`).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repro.api import Measured, class_structure, exact_spectrum, knockouts, load, measure, spectrum
    from repro.matrix import moments, top
    from repro.network import Network
    from repro.tracker import Tracker

__all__ = [
    "Measured",
    "Network",
    "Tracker",
    "class_structure",
    "exact_spectrum",
    "knockouts",
    "load",
    "measure",
    "moments",
    "spectrum",
    "top",
]
_ELSEWHERE = {
    "Tracker": "tracker",
    "moments": "matrix",
    "top": "matrix",
}  # the module of a name that is not in repro.api


def __getattr__(name: str) -> Any:  # loads torch when one of these is used, not on `import repro`
    if name in __all__:
        return getattr(import_module(f"repro.{_ELSEWHERE.get(name, 'api')}"), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("repro")
    raise AttributeError(f"module 'repro' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
