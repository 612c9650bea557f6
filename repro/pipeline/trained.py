"""Networks of the pipeline: building one, keeping its weights, and loading a selected one to be measured.

    outputs/<experiment>/selected/<cell>/epoch<e>.safetensors, run.json

The sweep stores no weights (18 000 files would be 2 TB); training is repeatable, so the selected run is trained again.
run.json is written last: where it is, the checkpoints are complete.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from repro import data
from repro.data import Split
from repro.network import Network
from repro.pipeline.config import Machine
from repro.pipeline.trainings import Trainings
from repro.storage.files import write_atomically
from repro.storage.identity import file_digest
from repro.storage.sealed import DamagedError, stored


def build(trainings: Trainings) -> nn.Module:
    """The network of a cell, freshly initialised from the training seed."""
    torch.manual_seed(trainings.recipe.seed)
    of = trainings.data
    return trainings.model.build(channels=of.channels, classes=of.classes, side=of.side)


def load_splits(trainings: Trainings, machine: Machine, device: str) -> tuple[Split, Split]:
    """The training subset of a cell, and the whole test set."""
    root = Path(machine.data_root).expanduser()
    load = partial(data.load, trainings.data, root=root, download=machine.download)
    return load(train=True, n_per_class=trainings.n_per_class).to(device), load(train=False).to(device)


def save_weights(path: Path, model: nn.Module) -> None:
    """Write parameters and buffers as safetensors, atomically."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    write_atomically(path, lambda unfinished: unfinished.write_bytes(save(state)))


def load_weights(path: Path, model: nn.Module) -> nn.Module:
    """Fill `model` from a safetensors file and return it in eval mode.

    Raises:
        FileNotFoundError, ValueError: no such file, a damaged one, or one of another architecture.
    """
    try:
        state = load_file(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no weights file {path}") from None
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is not a readable safetensors file ({error}); delete it and retrain, or write it with"
            " safetensors.torch.save_file(model.state_dict(), path)"
        ) from error
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{path} holds the weights of another architecture: {reason}") from error
    if broken := [name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()]:
        raise ValueError(f"{path} holds weights that are not finite, first in {broken[0]}")
    return model.eval()


class StoredCheckpoints(Mapping[int, nn.Module]):
    """The checkpoints of a selected run, by the number of epochs they were taken after; loaded when asked for.

    `record` is the run.json of the folder.
    """

    def __init__(self, folder: Path, record: Mapping[str, Any], trainings: Trainings, device: str):
        self._folder, self._trainings, self._device = folder, trainings, device
        self._epochs: list[int] = record["epochs"]
        self._digests: Mapping[str, str] = record["files"]

    def __iter__(self) -> Iterator[int]:
        return iter(self._epochs)

    def __len__(self) -> int:
        return len(self._epochs)

    def __contains__(self, epoch: object) -> bool:  # else Mapping loads it to find out
        return epoch in self._epochs

    def __getitem__(self, epoch: int) -> nn.Module:
        path = self._folder / f"epoch{epoch:04d}.safetensors"
        if stored(path, self._prove) is None:
            raise FileNotFoundError(f"{path} is missing or was damaged; the next run trains this network again")
        return load_weights(path, build(self._trainings)).to(self._device)

    def _prove(self, path: Path) -> str:
        if (digest := file_digest(path)) != self._digests[path.name]:
            raise DamagedError(path, "its content does not match the digest in run.json")
        return digest


def network_of(
    model: nn.Module,
    trainings: Trainings,
    machine: Machine,
    device: str,
    checkpoints: Mapping[int, nn.Module] | None = None,
) -> Network:
    """A trained network of a cell with the cell's data, on a device, ready to be measured."""
    train, test = load_splits(trainings, machine, device)
    return Network(
        model.to(device),
        train,
        test,
        weight_decay=trainings.recipe.weight_decay,
        checkpoints=checkpoints,
        batch_size=machine.curvature_batch,
        cell=trainings.cell,
    )
