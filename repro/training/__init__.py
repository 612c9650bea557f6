"""SGD on a block of learning rates (Papyan 2020, Appendix D)."""

from typing import TYPE_CHECKING, Any

from repro.training.recipe import History, Recipe, checkpoint_epochs

if TYPE_CHECKING:
    from repro.training.block import train_block

__all__ = ["VERSION", "History", "Recipe", "checkpoint_epochs", "train_block"]

VERSION = 1  # raise it by hand when a change of the code changes the numbers of a training


def __getattr__(name: str) -> Any:  # loads torch when it is used: a recipe needs none
    if name == "train_block":
        from repro.training.block import train_block

        return train_block
    raise AttributeError(f"module 'repro.training' has no attribute {name!r}")
