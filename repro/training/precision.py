"""Floating-point precision and repeatable kernels, set for the time of a training."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def repeatable(precision: str) -> Iterator[None]:
    """Deterministic kernels, and TF32 for float32 products if `precision` is "tf32" and only then.

    PyTorch's default lets cuDNN use TF32 and pick its kernels by timing them: neither is repeatable float32. An
    operation without a deterministic kernel warns and runs.
    """
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    deterministic, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may differ between streams
    try:
        for backend in backends:
            backend.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
        memory.fill_uninitialized_memory = False  # else every temporary is written twice
        yield
    finally:
        for backend, value in zip(backends, before):
            backend.fp32_precision = value
        torch.backends.cudnn.benchmark = benchmark
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        memory.fill_uninitialized_memory = fill


def forward_precision(device: torch.device, precision: str) -> torch.autocast:
    """Autocast to bfloat16 if `precision` is "bf16"; weights, gradients and losses stay as they are.

    Nothing is cached: a cast made inside vmap must not outlive it.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)
