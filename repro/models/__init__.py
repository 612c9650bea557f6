"""The paper's networks."""

from repro.models.registry import MODELS, build

__all__ = ["MODELS", "build"]
