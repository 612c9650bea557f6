"""The selected network of a cell: training it once more with checkpoints, and loading it to be measured.

    outputs/<experiment>/selected/<data>/<model>/n<k>/epoch<e>.safetensors, run.json

The sweep stores no weights (18 000 files would be 2 TB); training is repeatable, so the selected run is trained again.
run.json is written last: where it is, the checkpoints are complete.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from repro import data, models
from repro.data import Split
from repro.storage.files import file_digest, write_atomically
from repro.storage.results import Cell
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


class TrainedRun:
    """A selected network with its data, ready to be measured; all on the configured device.

    Attributes:
        cell: the cell of the grid it was selected in.
        model: the network after the last epoch, in eval mode.
        train, test: its training subset and the whole test set.
        epochs: the epochs of the checkpoints kept, 0 (initial weights) and the last one among them.
        weight_decay: of its training.

    With `weights` in the configuration, a safetensors file, it is that network instead, and `epochs` is empty.
    """

    def __init__(self, config: Mapping[str, Any]):
        self.cell: Cell = cell_of(config)
        self._config = config
        self._folder = selected_folder(Path(config["root"]), self.cell)
        weights = config.get("weights")
        record = {} if weights else read_record(self._folder)
        self.epochs: list[int] = record.get("epochs", [])
        self._digests: Mapping[str, str] = record.get("files", {})
        self.weight_decay: float = config["training"]["weight_decay"]
        self.batch_size: int = config["curvature_batch"]
        self.train = load_split(config, train=True)
        self.test = load_split(config, train=False)
        self.model = self._load(Path(weights)) if weights else self.at_epoch(self.epochs[-1])
        if weights:
            _check_takes(self.model, self.train.images[:1])

    def at_epoch(self, epoch: int) -> nn.Module:
        """The network after `epoch` epochs, one of `epochs`, in eval mode."""
        if epoch not in self.epochs:
            raise ValueError(f"{self.cell} has no checkpoint of epoch {epoch}; there are {self.epochs}")
        path = self._folder / f"epoch{epoch:04d}.safetensors"
        model = self._load(path)
        if self._digests.get(path.name, digest := file_digest(path)) != digest:
            raise ValueError(f"{path} is not the file that was written; delete run.json beside it and retrain")
        return model

    def _load(self, path: Path) -> nn.Module:
        return load_weights(path, build(self._config)).to(self.train.images.device)

    def batches(self, split: str = "train") -> list[tuple[Tensor, Tensor]]:
        """The batches that curvature is averaged over, in a fixed order."""
        return {"train": self.train, "test": self.test}[split].batches(self.batch_size)


def _check_takes(model: nn.Module, images: Tensor) -> None:
    """Refuse a network of one's own that is not made for the data."""
    try:
        with torch.no_grad():
            model(images)
    except RuntimeError as error:
        reason = f"the network does not take images {list(images.shape)}: {' '.join(str(error).split())[:300]}"
        raise ValueError(f"{reason}; build is called with their number of channels, images are 32 x 32") from error
