"""A trained network with its data and loss: the one thing that every measurement takes.

The library makes it of a user's model and tensors, the pipeline of a selected run or a weights file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from repro.curvature import checks
from repro.curvature.function import check_fixed_function, check_gradients
from repro.curvature.loss import Loss, SoftmaxCrossEntropy
from repro.curvature.other_losses import LossLike, find_loss
from repro.data import Split
from repro.storage.results import Cell

Data = Iterable[tuple[Tensor, Tensor]] | tuple[Tensor, Tensor] | Dataset[Any]
USUAL_OUTLIERS = 10  # most eigenpairs that are taken out of a spectrum by default where there are no classes (ours)


class Network:
    """A trained classifier, or network with another loss, with its data, checked.

    The data are read once, in their order, and held on the model's device.

    Attributes:
        model: as given; the mean loss of its outputs is what curvature is taken of.
        loss: of an example, by default the cross-entropy; class structure is of that one alone.
        train, test: the data as tensors; `test` is None if none were given.
        classes: C, the number of logits; of another loss, the number of outputs of an example, 10 at most.
        weight_decay: of its training; the measurement `weights` needs it, no other uses it.
        epochs: of the checkpoints given, ascending.
        batch_size: examples per batch when curvature is averaged: it decides memory, not results.
        cell: where the network belongs in a grid; the name of results and captions.
    """

    def __init__(
        self,
        model: nn.Module,
        train: Data | Split,
        test: Data | Split | None = None,
        *,
        weight_decay: float = 0.0,
        checkpoints: Mapping[int, nn.Module] | None = None,
        batch_size: int = 256,
        cell: Cell | None = None,
        loss: LossLike = None,
    ):
        """Check the model and its data; one pass over each.

        Args:
            model: a classifier in eval mode, inputs [B, ...] -> logits [B, C].
            train, test: tensors (inputs, labels), a Dataset of such pairs, a DataLoader, or a list of batches.
            checkpoints: networks by epoch, for the measurements `dynamics` and `alignment_dynamics`; a mapping may load
                them when they are asked for.
            loss: None for the cross-entropy of class labels, or of probabilities of the classes [B, C]; nn.MSELoss(),
                nn.BCEWithLogitsLoss(), nn.CrossEntropyLoss(...), or any function (outputs, targets) -> its mean over
                the examples, see `repro.curvature.other_losses.find_loss`. Then the data are pairs (inputs, targets)
                that it takes, and the model is any that returns outputs [B, ...].

        Raises:
            TypeError: data in another form, or a model that is no nn.Module.
            ValueError: model or data for which curvature is not defined; the sentence says why and what to do.
        """
        if not isinstance(model, nn.Module):
            raise TypeError(f"the model is a {type(model).__name__}: a torch.nn.Module is needed")
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: a positive number of examples is needed")
        self.model, self.weight_decay, self.batch_size = model, weight_decay, batch_size
        self._checkpoints: Mapping[int, nn.Module] = checkpoints or {}
        self.epochs = sorted(self._checkpoints)
        check_model(model)
        self.train, self.loss = _read(model, train, batch_size, loss)
        self.test = None if test is None else _read(model, test, batch_size, self.loss)[0]
        self.classes = self.train.classes
        check_fixed_function(model, self.train.images[:8])
        check_gradients(model, self.batches())
        self.cell = cell or Cell("own data", type(model).__name__, len(self.train.labels) // self.classes)
        if isinstance(checkpoints, dict):  # at hand already; those that are loaded when asked for are checked then
            for epoch in self.epochs:
                self.at_epoch(epoch)

    def at_epoch(self, epoch: int) -> nn.Module:
        """The checkpoint of one of `epochs`, checked.

        Raises:
            ValueError: there is none of that epoch, or it is of another architecture than the model.
        """
        if epoch not in self._checkpoints:
            raise ValueError(f"{self.cell} has no checkpoint of epoch {epoch}; there are {self.epochs}")
        network = self._checkpoints[epoch]
        check_model(network)
        _check_same_architecture(network, self.model, f"the checkpoint of epoch {epoch}")
        return network

    def batches(self, split: str = "train") -> list[tuple[Tensor, Tensor]]:
        """The batches that curvature is averaged over, in a fixed order; what `repro.curvature` takes as `data`."""
        chosen = {"train": self.train, "test": self.test}[split]
        if chosen is None:
            raise ValueError("no test data were given, and this is a measurement on test data: pass test=...")
        return chosen.batches(self.batch_size)

    @property
    def has_class_structure(self) -> bool:
        """Whether the loss is the plain cross-entropy of class labels."""
        return isinstance(self.loss, SoftmaxCrossEntropy) and self.loss.class_weights is None

    def check_class_structure(self, what: str) -> None:
        """Refuse another loss than the plain cross-entropy of class labels for a measurement of class structure.

        Raises:
            ValueError: naming the measurement and the loss.
        """
        loss = self.loss
        if not self.has_class_structure:
            weighted = " with class weights" if isinstance(loss, SoftmaxCrossEntropy) else ""
            raise ValueError(
                f"{what} is of the softmax cross-entropy of class labels, and this network's loss is the"
                f" {loss.name}{weighted}: Hess, G and E of any loss are in repro.spectrum(..., loss=...)"
            )

    def check_every_class(self) -> None:
        """Refuse training data that lack a class: class means need an example of each.

        Raises:
            ValueError: naming the classes.
        """
        checks.check_classes(self.train.labels, self.classes)


def check_model(model: nn.Module) -> None:
    """Refuse a network whose curvature is not defined, as far as can be told without data.

    Raises:
        ValueError: it is in train mode, or some weight or statistic of batch norm is not finite.
    """
    checks.check_deterministic(model)
    if training := [name or "the model" for name, module in model.named_modules() if module.training]:
        raise ValueError(f"{training[0]} is in train mode: call model.eval() first")
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    checks.check_weights(parameters)
    checks.check_weights(parameters | {name: b for name, b in model.named_buffers() if b.dtype.is_floating_point})


def _read(model: nn.Module, data: Any, batch_size: int, loss: LossLike) -> tuple[Split, Loss]:
    """The data as two tensors on the model's device, and their loss; one pass to look at the outputs."""
    like = next(model.parameters())
    try:
        batches = [_checked_batch(batch, like) for batch in _batches(data, batch_size)]
    except TypeError as error:
        if "default_collate" not in str(error):
            raise
        raise TypeError(f"{error}; give the data set a transform that makes tensors, ToTensor() for images") from error
    if not batches:
        raise ValueError("no data: a mean over examples needs at least one batch")
    x, y = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    found, classes = find_loss(loss, y), 0
    with torch.no_grad():
        for inputs, labels in Split(x, y, 0).batches(batch_size):
            try:
                outputs = model(inputs)
            except RuntimeError as error:
                reason = " ".join(str(error).split())[:300]
                raise ValueError(f"the model does not take inputs of shape {list(inputs.shape)}: {reason}") from error
            found.checked(outputs, labels)
            classes = outputs[0].numel()
    if isinstance(found, SoftmaxCrossEntropy):
        return Split(x, y.long(), classes), found
    return Split(x, y, min(classes, USUAL_OUTLIERS)), found


def _batches(data: Any, batch_size: int) -> Iterable[Any]:
    """Data in any of the accepted forms as batches (inputs, labels)."""
    if isinstance(data, Split):
        return data.batches(batch_size)
    if isinstance(data, Sequence) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        return [data]
    if isinstance(data, DataLoader):
        if data.drop_last:
            raise ValueError(
                "the loader has drop_last=True, so the mean would leave examples out: pass its data set instead"
            )
        return data
    if isinstance(data, Dataset):
        return DataLoader(data, batch_size=batch_size)
    if isinstance(data, Iterable) and not isinstance(data, Tensor | str | Mapping):
        return data
    raise TypeError(
        f"the data are a {type(data).__name__}: tensors (inputs, labels), a Dataset, a DataLoader or a list of batches"
        " (inputs, labels) are needed"
    )


def _checked_batch(batch: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """One batch on the model's device."""
    if not (isinstance(batch, Sequence) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch)):
        raise TypeError(
            f"a batch of the data is a {type(batch).__name__}: a pair of tensors (inputs, labels) is needed"
        )
    x, y = (part.to(like.device) for part in batch)
    if x.dtype == torch.uint8:
        raise ValueError("the inputs are uint8: convert them to the model's dtype as in its training (ToTensor, ...)")
    checks.check_inputs(x, y, like)
    return x, y


def _check_same_architecture(network: nn.Module, model: nn.Module, name: str) -> None:
    found, wanted = ({key: t.shape for key, t in m.state_dict().items()} for m in (network, model))
    if differing := [key for key in {**wanted, **found} if wanted.get(key) != found.get(key)]:
        raise ValueError(f"{name} is of another architecture than the model: '{differing[0]}' differs")
