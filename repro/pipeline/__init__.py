"""From an experiment on paper to finished results: the grid, the stages and their tasks, and where they run."""
