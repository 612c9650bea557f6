"""Data sets as tensors, with the paper's padding, normalisation and per-class subsets."""
