"""Precision and determinism are set inside `repeatable` and put back after it."""

from __future__ import annotations

import pytest
import torch

from repro.training.precision import forward_precision, repeatable


def settings() -> tuple:
    return (
        torch.backends.cuda.matmul.fp32_precision,
        torch.backends.cudnn.conv.fp32_precision,  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark,
        torch.are_deterministic_algorithms_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )


@pytest.mark.parametrize(("precision", "products"), [("fp32", "ieee"), ("tf32", "tf32"), ("bf16", "ieee")])
def test_settings_hold_inside_only(precision: str, products: str) -> None:
    before = settings()
    with repeatable(precision):
        assert settings() == (products, products, False, True, False)
    assert settings() == before
    with pytest.raises(KeyError), repeatable(precision):
        raise KeyError
    assert settings() == before


def test_bf16_forward_and_no_other() -> None:
    layer, x = torch.nn.Linear(3, 2), torch.ones(1, 3)
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32), ("tf32", torch.float32)):
        with forward_precision(x.device, precision):
            assert layer(x).dtype == dtype
