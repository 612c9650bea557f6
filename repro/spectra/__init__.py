"""Spectra as numbers and as curves (numpy only): what measurements store and figures draw."""
