"""Symmetric matrices known by their products, and their spectra."""
