"""One module a kind of measurement, each with a function `measure` that returns named arrays."""
