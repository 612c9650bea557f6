"""Which network is trained: a function that builds it and its settings; files conf/model/<name>.yaml are of this form.

    name: vgg11                        of the file, and of folders of results; by default made of `build`
    title: VGG11                       for people; by default the name
    build: repro.models.vgg:VGG11      module:function, called with those of channels, classes and side (of the
                                       data's images) that it takes, and with all other keys as its settings
    width: ${width}                    here the experiment's
    paper_epochs: 350                  optional, where the paper's number follows from the network: epochs,
    paper_rates: 25                    and learning rates of its sweep

Adding a network takes such a file and a module.
"""

from __future__ import annotations

import difflib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

OF_THE_DATA = ("channels", "classes", "side")
FACTS = ("name", "title", "build", "paper_epochs", "paper_rates")


@dataclass(frozen=True)
class Architecture:
    """A network that can be built for any data set.

    Attributes:
        builder: the function, as `module:function`.
        settings: its own keyword arguments.
    """

    name: str
    title: str
    builder: str
    settings: Mapping[str, Any]

    @classmethod
    def from_keys(cls, keys: Mapping[str, Any]) -> Architecture:
        """An architecture as conf/model/<name>.yaml writes it.

        Raises:
            ValueError: `build` is missing, the builder cannot be imported, or it has no argument of a key's name.
        """
        if not keys.get("build"):
            raise ValueError("model.build is missing: the function that builds the network, as module:function")
        settings = {str(key): value for key, value in keys.items() if key not in FACTS}
        name = str(keys.get("name") or keys["build"]).replace(":", ".")
        architecture = cls(name, str(keys.get("title") or name), str(keys["build"]), settings)
        architecture.check_settings()
        return architecture

    @property
    def full_title(self) -> str:
        """The title with a width that is not the paper's: VGG11 (width 0.125)."""
        width = self.settings.get("width", 1)
        return self.title if width == 1 else f"{self.title} (width {width:g})"

    def find_builder(self) -> Callable[..., nn.Module]:
        """The function that builds it.

        Raises:
            ValueError: it cannot be imported.
        """
        try:
            if not callable(builder := pkgutil.resolve_name(self.builder)):
                raise ValueError("it is no function")
            return builder
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(
                f"network {self.name!r}: {self.builder!r} cannot be imported: {error}; a builder is module:function, "
                "and the module's folder must be on the Python path (PYTHONPATH=...)"
            ) from error

    @property
    def code(self) -> Path | None:
        """The file of the builder's module, where it has one."""
        self.find_builder()
        module = sys.modules.get(self.builder.partition(":")[0])
        return Path(file) if (file := getattr(module, "__file__", None)) else None

    def check_settings(self) -> None:
        """Refuse settings that the builder has no argument for.

        Raises:
            ValueError: naming the setting and those there are.
        """
        parameters = inspect.signature(self.find_builder()).parameters
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            return
        known = [name for name in parameters if name not in OF_THE_DATA]
        for key in self.settings:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=2)
                hint = f"did you mean {' or '.join(f'model.{name}' for name in near)}? " if near else ""
                raise ValueError(
                    f"model.{key}: network {self.name!r} has no such setting; {hint}it has {', '.join(known) or 'none'}"
                )

    def build(self, *, channels: int, classes: int, side: int) -> nn.Module:
        """A freshly initialised network, drawn from torch's global generator: seed that first.

        Args:
            channels, side: of the images [B, channels, side, side] it will see.
            classes: logits that it has to return, [B, classes].

        Raises:
            ValueError: the function does not build a network from these.
        """
        from torch import nn

        builder = self.find_builder()
        parameters = inspect.signature(builder).parameters
        takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        data = {"channels": channels, "classes": classes, "side": side}
        given = {key: value for key, value in data.items() if key in parameters or takes_all}
        try:
            network = builder(**given, **self.settings)
        except TypeError as error:
            raise ValueError(
                f"network {self.name!r} cannot be built by {self.builder} with {given | dict(self.settings)}: {error}"
            ) from error
        if not isinstance(network, nn.Module):
            raise ValueError(f"{self.builder} returned {type(network).__name__}, but a torch.nn.Module is needed")
        return network
