"""Which device computes, and how many processes share this machine: asked where the work is done, never in planning."""

from __future__ import annotations

import os


def find_device(asked: str) -> str:
    """The device that auto, cpu, cuda or cuda:<number> comes to in this process.

    Raises:
        ValueError: there is no such GPU.
    """
    if asked == "cpu":
        return asked
    count = _count_gpus()
    if asked == "auto":
        return "cuda:0" if count else "cpu"
    number = int(asked.partition(":")[2] or 0)
    if number >= count:
        raise ValueError(f"device={asked}: PyTorch sees {count} GPUs here; device=auto takes what there is")
    return f"cuda:{number}"


def worker_gpus(device: str, workers: int | str) -> list[str | None]:
    """For each worker process of this machine the GPU it is alone to see, as CUDA_VISIBLE_DEVICES names it.

    None is a worker that sees what this process sees.

    Args:
        device: auto, cpu, cuda or cuda:<number>, a number among the visible GPUs.
        workers: how many; auto is one per visible GPU, one for a GPU asked for by number, or one per core where the
            device is the CPU.
    """
    if ":" in device:
        return [None] * (1 if workers == "auto" else int(workers))
    gpus = [] if device == "cpu" else _names_of_gpus()
    count = (len(gpus) or len(os.sched_getaffinity(0))) if workers == "auto" else int(workers)
    return [gpus[number % len(gpus)] if gpus else None for number in range(count)]


def _names_of_gpus() -> list[str]:
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = _count_gpus()
    return [str(number) for number in range(count)] if shown is None else shown.split(",")[:count]


def _count_gpus() -> int:
    """GPUs that CUDA_VISIBLE_DEVICES shows to this process; PyTorch asks the driver, and starts nothing on them."""
    import torch

    return torch.cuda.device_count()
