"""CUDA_VISIBLE_DEVICES and device=cpu are respected; nothing is asked before work begins."""

import os
import subprocess
import sys

import pytest
import torch

from repro.pipeline.devices import find_device, worker_gpus


@pytest.fixture
def gpus(monkeypatch):
    """So many GPUs for PyTorch to see, as it counts them by CUDA_VISIBLE_DEVICES."""

    def there(count, shown=None):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        if shown is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)

    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(5)))
    return there


@pytest.mark.parametrize(
    ("count", "asked", "device"),
    [(0, "auto", "cpu"), (2, "auto", "cuda:0"), (2, "cpu", "cpu"), (2, "cuda", "cuda:0"), (2, "cuda:1", "cuda:1")],
)
def test_a_device_is_found(gpus, count, asked, device):
    gpus(count)
    assert find_device(asked) == device


@pytest.mark.parametrize(("count", "asked"), [(0, "cuda"), (2, "cuda:2")])
def test_a_gpu_that_is_not_there_is_refused(gpus, count, asked):
    gpus(count)
    with pytest.raises(ValueError, match=f"device={asked}: PyTorch sees {count} GPUs here; device=auto"):
        find_device(asked)


@pytest.mark.parametrize(
    ("count", "shown", "device", "workers", "expected"),
    [
        (0, None, "auto", "auto", [None] * 5),  # one per core
        (0, "", "auto", "auto", [None] * 5),  # a GPU machine on which nothing is shown
        (8, None, "auto", "auto", [str(number) for number in range(8)]),
        (8, None, "cpu", "auto", [None] * 5),  # the CPU of a GPU machine
        (1, "3", "auto", "auto", ["3"]),  # one of eight
        (2, "GPU-a,GPU-b", "cuda", "auto", ["GPU-a", "GPU-b"]),
        (2, "0,1", "auto", 3, ["0", "1", "0"]),
        (2, None, "cuda:1", "auto", [None]),  # which the worker then finds among all
        (2, None, "cpu", 2, [None, None]),
    ],
)
def test_workers(gpus, count, shown, device, workers, expected):
    gpus(count, shown)
    assert worker_gpus(device, workers) == expected


def test_asking_for_the_cpu_does_not_load_torch():
    code = "import sys; from repro.pipeline.devices import find_device, worker_gpus; worker_gpus('cpu', 'auto'); "
    code += "find_device('cpu'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
