"""The paper's data sets as tensors."""

from repro.data.datasets import Split, load
from repro.data.description import DataSet

__all__ = ["DataSet", "Split", "load"]
