"""Curvature matrices of a classifier on a data set."""
