"""Spectra of deep classifiers and the class/cross-class structure behind them (Papyan, JMLR 2020)."""
