"""Spectra of deep classifiers and the class/cross-class structure behind them (Papyan, JMLR 2020).

For a network of your own: spectrum, knockouts, class_structure, measure, Network (see `repro.api`).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repro.api import Measured, class_structure, knockouts, measure, spectrum
    from repro.network import Network

__all__ = ["Measured", "Network", "class_structure", "knockouts", "measure", "spectrum"]


def __getattr__(name: str) -> Any:  # loads torch when one of these is used, not on `import repro`
    if name in __all__:
        from repro import api

        return getattr(api, name)
    raise AttributeError(f"module 'repro' has no attribute {name!r}")
