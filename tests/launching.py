"""Launch configurations for tests: those that ship, with changes."""

import functools
from dataclasses import replace
from typing import Any

from repro.pipeline.config import STAGES, Launch, StageResources
from repro.pipeline.experiment import Experiment


@functools.cache
def as_documented() -> Launch:
    """conf/launch/slurm.yaml, with nothing else said."""
    return Experiment(["experiment=smoke", "launch=slurm"]).launch


def changed(launch: Launch, *, resources: dict[str, Any] | None = None, **changes: Any) -> Launch:
    """With other values: those of a stage as `sweep={...}`, those of all stages as `resources`, others by name."""
    of_stages = {stage: changes.pop(stage) for stage in STAGES if stage in changes}
    stages = {stage: replace(launch.stages.get(stage, StageResources()), **own) for stage, own in of_stages.items()}
    common = replace(launch.resources, **(resources or {}))
    return replace(launch, resources=common, stages={**launch.stages, **stages}, **changes)
