"""The paper's data sets as tensors."""

from typing import TYPE_CHECKING, Any

from repro.data.description import DataSet

if TYPE_CHECKING:
    from repro.data.datasets import Split, load

__all__ = ["DataSet", "Split", "load"]


def __getattr__(name: str) -> Any:  # loads torch when one of these is used: a description of the data needs none
    if name in __all__:
        from repro.data import datasets

        return getattr(datasets, name)
    raise AttributeError(f"module 'repro.data' has no attribute {name!r}")
