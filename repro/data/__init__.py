"""The paper's data sets as tensors."""

from repro.data.datasets import Split, load
from repro.data.description import DataSet
from repro.data.subsets import paper_sizes

__all__ = ["DataSet", "Split", "load", "paper_sizes"]
