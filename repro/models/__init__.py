"""The paper's networks, and how any network is named and built."""

from repro.models.architecture import Architecture

__all__ = ["Architecture"]
