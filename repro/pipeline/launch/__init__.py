"""Ways to run a list of tasks."""
