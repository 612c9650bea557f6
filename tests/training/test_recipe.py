"""The schedule, the batch order and the epochs that are measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from repro.training.recipe import Recipe, log_spaced_epochs


def recipe(**changes: object) -> Recipe:
    path = Path(__file__).parents[2] / "conf" / "training" / "paper.yaml"
    settings = OmegaConf.to_container(OmegaConf.merge(OmegaConf.load(path), {"epochs": 200, "seed": 0}))
    return Recipe(**{**settings, **changes})  # type: ignore[dict-item]


@pytest.mark.parametrize(("epochs", "drops"), [(200, [66, 133]), (350, [116, 233]), (300, [100, 200]), (2, [1, 1])])
def test_rate_drops_at_thirds(epochs: int, drops: list[int]) -> None:
    decays = [recipe(epochs=epochs).decay(epoch) for epoch in range(epochs)]
    assert decays[0] == 1
    assert [sum(decay > 0.5 for decay in decays), sum(decay > 0.05 for decay in decays)] == drops


def test_an_epoch_sees_each_example_once_in_an_order_of_its_own() -> None:
    first, second = (torch.cat(recipe(batch_size=8).batches(epoch, 30)) for epoch in (0, 1))
    assert first.sort().values.tolist() == second.sort().values.tolist() == list(range(30))
    assert first.tolist() != second.tolist()
    assert first.tolist() != torch.cat(recipe(batch_size=8, seed=1).batches(0, 30)).tolist()


@pytest.mark.parametrize(
    ("examples", "sizes"), [(30, [8, 8, 8, 6]), (16, [8, 8]), (17, [8, 9]), (9, [9]), (5, [5]), (18, [8, 8, 2])]
)
def test_no_batch_holds_one_example(examples: int, sizes: list[int]) -> None:
    assert [len(rows) for rows in recipe(batch_size=8).batches(0, examples)] == sizes


@pytest.mark.parametrize(
    ("last_batch", "examples", "sizes"),
    [
        ("drop", 18, [8, 8]), ("drop", 16, [8, 8]), ("drop", 17, [8, 8]), ("drop", 5, [5]),
        ("join", 18, [8, 10]), ("join", 16, [8, 8]), ("join", 15, [15]), ("join", 5, [5]),
    ],
)  # fmt: skip
def test_a_small_last_batch_can_be_dropped_or_joined(last_batch: str, examples: int, sizes: list[int]) -> None:
    kept, batches = (recipe(batch_size=8, last_batch=b).batches(3, examples) for b in ("keep", last_batch))
    assert [len(rows) for rows in batches] == sizes
    assert torch.cat(batches).tolist() == torch.cat(kept)[: sum(sizes)].tolist()  # the order is the same


def test_evaluated_epochs() -> None:
    assert recipe().evaluated_epochs() == [200]
    assert recipe(evaluate=[0, 3, 500]).evaluated_epochs() == [3, 200]
    assert recipe(evaluate=4).evaluated_epochs() == [1, 14, 200]
    assert log_spaced_epochs(200, 4) == [0, 1, 14, 200]
    assert log_spaced_epochs(1, 8) == [0, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs >= 1"),
        ({"precision": "fp8"}, "fp32, tf32, bf16"),
        ({"evaluate": "all"}, "'last'"),
        ({"evaluate": None}, "'last'"),
        ({"last_batch": "skip"}, "'skip' is unknown; choose one of keep, drop, join"),
    ],
)
def test_bad_values_are_named(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(**change)
