"""Networks by name: the paper's, and functions of a user's own module."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from typing import Any

from torch import nn

from repro.models.densenet import DenseNet40
from repro.models.mlp import MLP
from repro.models.resnet import ResNet18
from repro.models.vgg import VGG11

MODELS: dict[str, Callable[..., nn.Module]] = {
    "vgg11": VGG11,
    "resnet18": ResNet18,
    "mlp": MLP,
    "densenet40": DenseNet40,
}


def build(name: str, *, channels: int, classes: int, **settings: Any) -> nn.Module:
    """A freshly initialised network, drawn from torch's global generator: seed that first.

    Args:
        name: one of MODELS, or `module:function`, which is imported and called with the other arguments.
        channels, classes: of the images [B, channels, 32, 32] and of the logits [B, classes].
        settings: the other keys of conf/model/<name>.yaml.

    Raises:
        ValueError: there is no such network, its settings are others, or the function returns no network.
    """
    builder = imported(name) if ":" in name else MODELS.get(name)
    if builder is None:
        near = difflib.get_close_matches(name, MODELS, n=3) or MODELS
        raise ValueError(f"there is no network {name!r}; did you mean one of {', '.join(near)}, or module:function?")
    try:
        model = builder(channels=channels, classes=classes, **settings)
    except TypeError as error:
        raise ValueError(f"network {name!r} cannot be built with channels, classes and {settings}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name} returned {type(model).__name__}, but a torch.nn.Module is needed")
    return model


def imported(name: str) -> Callable[..., nn.Module]:
    """The function that `module:function` names."""
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        where = "its folder must be on the Python path (PYTHONPATH=...)"
        raise ValueError(f"network {name!r} cannot be imported: {error}; {where}") from error
