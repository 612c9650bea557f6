"""train_block: PyTorch's SGD, repeatable, and divergence as a result."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from repro.training.block import train_block
from repro.training.recipe import History, Recipe

torch.set_num_threads(1)


class Split(NamedTuple):
    images: Tensor
    labels: Tensor
    classes: int


def split(examples: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Split:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(examples) % 3
    images = torch.randn(examples, 1, 8, 8, generator=generator, dtype=dtype) + labels.view(-1, 1, 1, 1) / 3
    return Split(images, labels, 3)


def convnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(),
        nn.Linear(16, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3),
    )  # fmt: skip


def recipe(**changes: object) -> Recipe:
    settings: dict = {"epochs": 6, "batch_size": 8, "momentum": 0.9, "weight_decay": 5e-4, "milestones": [1 / 3, 2 / 3]}
    settings |= {"factor": 0.1, "evaluate": "last", "precision": "fp32", "seed": 0}
    return Recipe(**settings | changes)


TRAIN, TEST = split(30), split(20, seed=1)
RATES = [0.1, 0.01]


def without_time(history: History) -> dict:
    return {**vars(history), "seconds": None}


def plain_pytorch(rate: float, recipe: Recipe) -> nn.Module:
    """The oracle: a DataLoader-like loop with torch.optim and its scheduler, nothing of ours but the batch order."""
    torch.manual_seed(recipe.seed)
    network = convnet().double()
    sgd = torch.optim.SGD(network.parameters(), rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    drops = [int(recipe.epochs / 3), int(2 * recipe.epochs / 3)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(sgd, drops, gamma=recipe.factor)
    for epoch in range(recipe.epochs):
        for rows in recipe.batches(epoch, len(TRAIN.labels)):
            sgd.zero_grad()
            nn.functional.cross_entropy(network(TRAIN.images[rows]), TRAIN.labels[rows]).backward()
            sgd.step()
        schedule.step()
    return network.eval()


def test_equals_plain_pytorch() -> None:
    networks = {}
    (_, history) = train_block(
        convnet, TRAIN, TEST, RATES, recipe(),
        on_checkpoint=lambda index, epoch, network: networks.update({index: network}), checkpoint_epochs=[6],
    )  # fmt: skip
    for index, rate in enumerate(RATES):
        expected = plain_pytorch(rate, recipe())
        for name, value in expected.state_dict().items():
            torch.testing.assert_close(networks[index].state_dict()[name], value, rtol=1e-12, atol=1e-12)
    logits = expected(TEST.images).detach()
    assert history.test_error == [float((logits.argmax(1) != TEST.labels).double().mean())]
    assert history.test_loss[-1] == pytest.approx(float(nn.functional.cross_entropy(logits, TEST.labels)), rel=1e-12)
    assert history.epochs == [6]


def test_alone_equals_in_the_block_bit_for_bit() -> None:
    together = train_block(convnet, TRAIN, TEST, RATES, recipe(evaluate=[1, 3]))
    alone = [train_block(convnet, TRAIN, TEST, [rate], recipe(evaluate=[1, 3]))[0] for rate in RATES]
    assert [without_time(h) for h in together] == [without_time(h) for h in alone]
    assert together[0].epochs == [1, 3, 6]


def test_divergence_is_a_result_and_is_told_at_once() -> None:
    told = []
    histories = train_block(
        convnet, TRAIN, TEST, [1e30, 0.01], recipe(), on_finished=lambda index, h: told.append((index, h.diverged))
    )
    assert told == [(0, True), (1, False)]
    assert (histories[0].train_loss[-1], histories[0].test_error[-1]) == (None, pytest.approx(2 / 3))
    assert histories[0].epochs == [6]
    assert not histories[1].diverged


def test_progress_ends_at_the_total() -> None:
    seen = []
    train_block(convnet, TRAIN, TEST, [*RATES, 1e30], recipe(), on_epoch=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (18, 18)
    assert seen == sorted(seen)


def test_one_example_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two training examples, got 1"):
        train_block(convnet, split(1), TEST, RATES, recipe())


def test_left_over_example_trains() -> None:
    histories = train_block(convnet, split(17), TEST, [0.01], recipe())  # 8 + 9 instead of 8 + 8 + 1
    assert not histories[0].diverged


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_every_precision_trains(precision: str) -> None:
    data = split(30, dtype=torch.float32)
    (history,) = train_block(convnet, data, data, [0.05], recipe(precision=precision, epochs=20))
    assert history.train_error[-1] < 0.5
