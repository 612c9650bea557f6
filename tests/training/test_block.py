"""train_block: PyTorch's SGD, repeatable, and divergence as a result."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

import networks
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
    settings |= {"factor": 0.1, "evaluate": "last", "precision": "fp32", "last_batch": "keep", "seed": 0}
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


@pytest.mark.parametrize("name", ["vgg11", "resnet18", "mlp"])
def test_stacked_equals_separate(name: str) -> None:
    def build_tiny() -> nn.Module:
        return networks.build(name, classes=3, **networks.TINY[name])

    train, test = (Split(nn.functional.pad(s.images, (12, 12, 12, 12)), *s[1:]) for s in (TRAIN, TEST))
    weights: dict[str, list[dict]] = {}
    for engine in ("sequential", "stacked"):
        weights[engine] = []
        train_block(
            build_tiny, train, test, RATES, recipe(epochs=3), engine=engine, checkpoint_epochs=[3],
            on_checkpoint=lambda index, epoch, network, of=engine: weights[of].append(network.state_dict()),
        )  # fmt: skip
    for separate, stacked in zip(weights["sequential"], weights["stacked"], strict=True):
        for key in separate:
            torch.testing.assert_close(stacked[key], separate[key], rtol=1e-10, atol=1e-10)


def test_a_diverging_slice_leaves_the_others_alone() -> None:
    alone = train_block(convnet, TRAIN, TEST, RATES, recipe(evaluate=3), engine="stacked")
    beside = train_block(convnet, TRAIN, TEST, [1e30, *RATES], recipe(evaluate=3), engine="stacked")
    assert [history.diverged for history in beside] == [True, False, False]
    for a, b in zip(alone, beside[1:]):
        assert (a.epochs, a.test_error) == (b.epochs, b.test_error)
        assert a.test_loss == pytest.approx(b.test_loss, rel=1e-10)


def test_the_stack_is_bounded_by_memory() -> None:
    order: list[int] = []
    train_block(
        convnet, TRAIN, TEST, [0.1, 0.03, 0.01], recipe(), engine="stacked", stack_bytes=1,
        on_checkpoint=lambda index, epoch, network: order.append(index), checkpoint_epochs=[0, 6],
    )  # fmt: skip
    assert order == [0, 0, 1, 1, 2, 2]  # one at a time: as small as a stack can be


def test_unknown_engine_is_refused() -> None:
    with pytest.raises(ValueError, match="'fast' is unknown; choose one of sequential, stacked"):
        train_block(convnet, TRAIN, TEST, RATES, recipe(), engine="fast")


def test_a_stack_is_the_same_whatever_of_it_is_stored() -> None:
    """Runs that are stored train along, so that the others see the same stack; they are not told again."""
    rates, told = [0.3, 0.1, 0.03, 0.01], []
    whole = train_block(convnet, TRAIN, TEST, rates, recipe(evaluate=3), engine="stacked")
    rest = train_block(
        convnet, TRAIN, TEST, rates, recipe(evaluate=3), engine="stacked", stored=[0, 2],
        on_finished=lambda index, history: told.append(index),
    )  # fmt: skip
    assert told == [1, 3]
    assert [without_time(history) for history in rest] == [without_time(whole[index]) for index in (1, 3)]


class Killed(Exception):
    pass


@pytest.mark.parametrize("engine", ["sequential", "stacked"])
@pytest.mark.parametrize("after", [1, 4, 9, 17])  # epochs of the block, of 24; one run diverges in its first
def test_killed_and_resumed_equals_undisturbed(engine: str, after: int, tmp_path: Path) -> None:
    rates, state = [1e30, 0.1, 0.03, 0.01], tmp_path / "block.safetensors"
    weights: list[dict[int, dict]] = []

    def train(**options: object) -> list[dict]:
        weights.append({})
        histories = train_block(
            convnet, TRAIN, TEST, rates, recipe(evaluate=3), engine=engine, checkpoint_epochs=[6], **options,
            on_checkpoint=lambda index, epoch, network: weights[-1].update({index: network.state_dict()}),
        )  # fmt: skip
        return [without_time(history) for history in histories]

    def kill(done: int, total: int) -> None:
        if done >= after:
            raise Killed

    told: set[int] = set()
    undisturbed = train()
    with pytest.raises(Killed):
        train(checkpoint=state, checkpoint_seconds=0, on_epoch=kill, on_finished=lambda index, history: told.add(index))
    done: list[int] = []
    options = {"on_finished": lambda index, history: told.add(index), "on_epoch": lambda now, total: done.append(now)}
    resumed = train(checkpoint=state, checkpoint_seconds=0, **options)
    assert resumed == undisturbed
    assert done[0] >= after  # it went on, and did not start again
    assert told == {0, 1, 2, 3}
    for index, state_dict in weights[-1].items():
        assert all(torch.equal(tensor, weights[0][index][name]) for name, tensor in state_dict.items())
    assert not state.exists()


@pytest.mark.parametrize("engine", ["sequential", "stacked"])
def test_killed_again_and_again_loses_and_repeats_nothing(engine: str, tmp_path: Path) -> None:
    """Runs are stored between two kills, before the first saved state too; what was saved is found again."""
    rates, state, stored = [1e30, 0.1, 0.03, 0.01], tmp_path / "block.safetensors", {}

    def train(kill_at: int, checkpoint_seconds: float) -> list[int]:
        """Train until `kill_at` epochs of the block's 24 are done; returns the counts of epochs that were told."""
        done = []

        def kill(now: int, total: int) -> None:
            done.append(now)
            if now >= kill_at:
                raise Killed

        def store(index: int, history: History) -> None:
            assert index not in stored, "told again"
            stored[index] = without_time(history)

        with contextlib.suppress(Killed):
            train_block(
                convnet, TRAIN, TEST, rates, recipe(evaluate=3), engine=engine, stack_bytes=1, stored=set(stored),
                on_finished=store, on_epoch=kill, checkpoint=state, checkpoint_seconds=checkpoint_seconds,
            )  # fmt: skip
        return done

    assert train(13, 1e9)[-1] == 13  # nothing saved; the diverged run and the next are stored
    assert train(15, 0.0) == [13, 14, 15]  # the third run begins again; its second epoch is saved
    assert train(17, 0.0) == [15, 16, 17]
    assert train(21, 0.0)[:2] == [17, 18]  # to the fourth run
    assert train(99, 0.0)[0] == 21
    undisturbed = train_block(convnet, TRAIN, TEST, rates, recipe(evaluate=3), engine=engine, stack_bytes=1)
    assert [stored[index] for index in range(4)] == [without_time(history) for history in undisturbed]
    assert train(99, 0.0) == []


def test_the_state_of_another_block_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def kill(done: int, total: int) -> None:
        if done == 3:
            raise Killed

    state, options = tmp_path / "block.safetensors", {"checkpoint_seconds": 0, "engine": "sequential"}
    with pytest.raises(Killed):
        train_block(convnet, TRAIN, TEST, RATES, recipe(), checkpoint=state, on_epoch=kill, **options)
    expected = train_block(convnet, TRAIN, TEST, RATES, recipe(seed=1), **options)
    resumed = train_block(convnet, TRAIN, TEST, RATES, recipe(seed=1), checkpoint=state, **options)
    assert "of another configuration" in caplog.text
    assert [without_time(h) for h in resumed] == [without_time(h) for h in expected]
    state.write_bytes(b"torn")
    train_block(convnet, TRAIN, TEST, RATES, recipe(), checkpoint=state, **options)
    assert "is damaged" in caplog.text
