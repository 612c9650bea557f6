"""The selected network of a cell: training it once more with checkpoints, and loading it to be measured.

    outputs/<experiment>/selected/<data>/<model>/n<k>/epoch<e>.safetensors, run.json

The sweep stores no weights (18 000 files would be 2 TB); training is repeatable, so the selected run is trained again.
run.json is written last: where it is, the checkpoints are complete.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from repro import data, models
from repro.data import Split
from repro.network import Network
from repro.storage.files import file_digest, write_atomically
from repro.storage.runs import cell_of, read_record, selected_folder


def build(config: Mapping[str, Any]) -> nn.Module:
    """The network of a resolved configuration, freshly initialised from the training seed."""
    torch.manual_seed(config["training"]["seed"])
    return models.build(channels=config["data"]["channels"], classes=config["data"]["classes"], **config["model"])


def load_split(config: Mapping[str, Any], *, train: bool) -> Split:
    """The training subset of a resolved configuration, or its whole test set, on its device."""
    n_per_class = config["n_per_class"] if train else None
    where = {"root": Path(config["data_root"]).expanduser(), "download": config["download"]}
    return data.load(config["data"], train=train, n_per_class=n_per_class, **where).to(device_of(config))


def device_of(config: Mapping[str, Any]) -> torch.device:
    """The device a configuration names; 'auto' is a GPU where there is one."""
    if config["device"] != "auto":
        return torch.device(config["device"])
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


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
    if broken := [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]:
        raise ValueError(f"{path} holds weights that are not finite, first in {broken[0]}")
    return model.eval()


class StoredCheckpoints(Mapping[int, nn.Module]):
    """The checkpoints of a selected run, by the number of epochs they were taken after; loaded when asked for."""

    def __init__(self, config: Mapping[str, Any]):
        self._config, self._folder = config, selected_folder(Path(config["root"]), cell_of(config))
        record = read_record(self._folder)
        self.epochs: list[int] = record["epochs"]
        self._digests: Mapping[str, str] = record["files"]

    def __iter__(self) -> Iterator[int]:
        return iter(self.epochs)

    def __len__(self) -> int:
        return len(self.epochs)

    def __getitem__(self, epoch: int) -> nn.Module:
        path = self._folder / f"epoch{epoch:04d}.safetensors"
        model = _load(self._config, path)
        if self._digests.get(path.name, digest := file_digest(path)) != digest:
            raise ValueError(f"{path} is not the file that was written; delete run.json beside it and retrain")
        return model


def network_of(config: Mapping[str, Any]) -> Network:
    """The selected network of a cell with its data, on the configured device; its last epoch is measured.

    With `weights` in the configuration, a safetensors file, it is that network instead, and it has no checkpoints.
    """
    weights: str | None = config.get("weights")
    checkpoints = {} if weights else StoredCheckpoints(config)
    model = _load(config, Path(weights)) if weights else checkpoints[max(checkpoints)]
    train, test = load_split(config, train=True), load_split(config, train=False)
    return Network(
        model,
        train,
        test,
        weight_decay=config["training"]["weight_decay"],
        checkpoints=checkpoints,
        batch_size=config["curvature_batch"],
        cell=cell_of(config),
    )


def _load(config: Mapping[str, Any], path: Path) -> nn.Module:
    return load_weights(path, build(config)).to(device_of(config))
