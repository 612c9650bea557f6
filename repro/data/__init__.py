"""Data sets as tensors, with the paper's padding, normalisation and per-class subsets."""

from repro.data.datasets import DataSet, Split, load
from repro.data.subsets import choose_per_class, paper_sizes

__all__ = ["DataSet", "Split", "choose_per_class", "load", "paper_sizes"]
