"""SGD on a block of learning rates (Papyan 2020, Appendix D)."""

from repro.training.block import VERSION, train_block
from repro.training.recipe import History, Recipe, checkpoint_epochs

__all__ = ["VERSION", "History", "Recipe", "checkpoint_epochs", "train_block"]
