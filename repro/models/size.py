"""What a network comes to in operations and bytes, counted by torch without computing anything."""

from __future__ import annotations

import functools
import json
from typing import NamedTuple

from repro.models.architecture import Architecture


class NetworkSize(NamedTuple):
    """Of a network: operations of one image's pass, a multiplication and an addition being two, and bytes."""

    flop: int
    weight_bytes: int


def network_size(architecture: Architecture, *, channels: int, classes: int, side: int) -> NetworkSize:
    """What a network of an architecture comes to, for images [channels, side, side] of so many classes."""
    settings = json.dumps(dict(architecture.settings), sort_keys=True)
    return _size(architecture.builder, settings, channels, classes, side)


@functools.lru_cache
def _size(builder: str, settings: str, channels: int, classes: int, side: int) -> NetworkSize:
    import torch  # here: sizes that are remembered are read without it
    from torch.utils.flop_counter import FlopCounterMode

    architecture = Architecture(builder, builder, builder, json.loads(settings))

    def count(device: str) -> NetworkSize:
        with torch.device(device), torch.no_grad(), FlopCounterMode(display=False) as counter:
            network = architecture.build(channels=channels, classes=classes, side=side)
            network.eval()(torch.zeros(1, channels, side, side))
        return NetworkSize(counter.get_total_flops(), sum(tensor.nbytes for tensor in network.state_dict().values()))

    with torch.random.fork_rng(devices=[]):
        try:
            return count("meta")  # shapes alone
        except (RuntimeError, NotImplementedError):  # a network of a user may look at its numbers
            return count("cpu")
