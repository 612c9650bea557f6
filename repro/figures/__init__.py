"""One module a figure: stored results in, matplotlib figure out. Nothing here imports torch."""
