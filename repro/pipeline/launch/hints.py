"""The commands that output and errors name: with experiment, launcher and overrides, so that each can be pasted."""

from __future__ import annotations

import shlex
from collections.abc import Sequence


class Hints:
    """Made of the overrides that scripts/reproduce.py was given: make hands it its EXPERIMENT, LAUNCH and ARGS."""

    def __init__(self, overrides: Sequence[str]):
        given = {"experiment": "", "launch": "slurm"}
        rest = []
        for override in overrides:
            key, _, value = override.partition("=")
            if key in given:
                given[key] = value
            else:
                rest.append(override)
        variables = {"EXPERIMENT": [given["experiment"]], "LAUNCH": [given["launch"]], "ARGS": rest}
        self._given = [f"{name}={_quoted(values)}" for name, values in variables.items() if any(values)]

    def make(self, target: str) -> str:
        """The command for a target, in backquotes."""
        return f"`{' '.join(['make', target, *self._given])}`"


def _quoted(values: Sequence[str]) -> str:
    """For two shells and the make between them, which takes one of two $."""
    return shlex.quote(shlex.join(values).replace("$", "$$"))
