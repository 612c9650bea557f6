"""What a checkpoint is recognised by: the weights and the data themselves, and what computes with them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from repro.storage.provenance import provenance

PARTS = 2  # raised when a measurement is divided into other parts: a checkpoint numbers them


def fingerprint(models: Iterable[nn.Module], data: Iterable[Any]) -> str:
    """16 hexadecimal digits of the models' architecture, weights and buffers, and of every tensor in the data.

    Args:
        data: batches, of tensors in any nesting.
    """
    state = hashlib.sha256()
    for model in models:
        state.update(repr(model).encode())
        for name, tensor in model.state_dict().items():
            state.update(name.encode())
            _add(state, tensor)
    for leaf in tree_leaves(list(data)):
        if isinstance(leaf, Tensor):
            _add(state, leaf)
        else:
            state.update(repr(leaf).encode())
    return state.hexdigest()[:16]


def environment(device: torch.device | str) -> Mapping[str, Any]:
    """What a checkpoint depends on beside the network and its data: libraries, device and threads, and its parts."""
    made = provenance(device, 0)
    return {key: made[key] for key in ("torch", "numpy", "device", "threads")} | {"parts": PARTS}


def _add(state: Any, tensor: Tensor) -> None:
    state.update(f"{tensor.dtype}{list(tensor.shape)}".encode())
    state.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
