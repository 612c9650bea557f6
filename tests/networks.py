"""The networks of conf/model, with settings of a test's own."""

from pathlib import Path
from typing import Any

import yaml
from torch import nn

from repro.models import Architecture

CONF = Path(__file__).parent.parent / "conf" / "model"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "own")

# Narrow, and with few enough layers that float64 passes take milliseconds.
TINY: dict[str, dict[str, Any]] = {
    "vgg11": {"width": 0.03},
    "resnet18": {"width": 0.04},
    "mlp": {"width": 0.01, "layers": 4},
    "densenet40": {"width": 0.1},
}


def architecture(name: str, **settings: Any) -> Architecture:
    """A network of conf/model, some of its settings changed."""
    return Architecture.from_keys(yaml.safe_load((CONF / f"{name}.yaml").read_text()) | {"width": 1.0} | settings)


def build(name: str, *, channels: int = 1, classes: int = 10, side: int = 32, **settings: Any) -> nn.Module:
    """The same, built."""
    return architecture(name, **settings).build(channels=channels, classes=classes, side=side)
