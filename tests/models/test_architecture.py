"""Any network by its configuration: the paper's, and functions of a user's own module."""

from pathlib import Path

import pytest
import torch
from networks import NAMES, architecture, build
from torch import nn

from repro.models import Architecture

MODULES = Path(__file__).parents[2] / "repro" / "models"


def test_every_network_has_its_file_under_its_name_and_a_module():
    for name in NAMES:
        of = architecture(name)
        assert of.name == name
        module, _, _ = of.builder.partition(":")
        assert (MODULES / f"{module.removeprefix('repro.models.')}.py").is_file()


@pytest.mark.parametrize("name", NAMES)
def test_width_scales_every_hidden_layer(name):
    half, full = build(name, channels=3, classes=7, width=0.5), build(name, channels=3, classes=7)
    for a, b in zip(half.modules(), full.modules(), strict=True):
        if isinstance(a, nn.BatchNorm1d | nn.BatchNorm2d):
            assert 2 * a.num_features == b.num_features
    tiny = build(name, channels=3, classes=7, width=1e-6).eval()  # no layer vanishes
    assert tiny(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize("width", [0, -1.0, float("nan")])
def test_width_must_be_positive(width):
    with pytest.raises(ValueError, match="must be positive"):
        build("vgg11", width=width)


def test_same_seed_same_weights():
    def weights(seed):
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in build("resnet18", width=0.1).parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_titles_say_a_width_that_is_not_the_papers():
    assert architecture("vgg11").full_title == "VGG11"
    assert architecture("vgg11", width=0.125).full_title == "VGG11 (width 0.125)"


def test_facts_are_no_settings():
    assert set(architecture("mlp").settings) == {"width", "layers", "bias"}


def test_a_setting_that_the_builder_does_not_take_is_named_with_the_near_ones():
    with pytest.raises(
        ValueError, match=r"\Amodel\.widht: network 'vgg11' has no such setting; did you mean model.width"
    ):
        architecture("vgg11", widht=1.0)
    with pytest.raises(ValueError, match=r"model\.classes: network 'vgg11' has no such setting; it has width\Z"):
        architecture("vgg11", classes=3)  # follows from the data


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """An importable module of a user."""
    (tmp_path / "users_networks.py").write_text(
        "from torch import nn\n"
        "def linear(channels, classes, bias):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(channels * 1024, classes, bias=bias))\n"
        "def of_any_side(channels, classes, side):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(channels * side**2, classes))\n"
        "def anything(**settings):\n"
        "    return nn.Linear(settings['side'], settings['depth'])\n"
        "def nothing(channels, classes):\n"
        "    return None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


def own(function, **settings):
    return Architecture.from_keys({"build": f"users_networks:{function}", **settings})


@pytest.mark.usefixtures("own_module")
def test_functions_of_a_users_module():
    network = own("linear", bias=False).build(channels=3, classes=4, side=32)
    assert [p.shape for p in network.parameters()] == [(4, 3 * 1024)]
    network = own("of_any_side").build(channels=1, classes=4, side=8)
    assert network[1].in_features == 64
    network = own("anything", depth=5).build(channels=1, classes=4, side=8)
    assert network.weight.shape == (5, 8)


@pytest.mark.usefixtures("own_module")
def test_a_users_network_is_called_as_its_function():
    of = own("linear", bias=True)
    assert of.name == of.title == "users_networks.linear"


@pytest.mark.usefixtures("own_module")
@pytest.mark.parametrize("name", ["users_networks:absent", "no_such_module:linear", "users_networks:", ":linear"])
def test_a_function_that_is_not_there(name):
    with pytest.raises(ValueError, match=f"'{name}' cannot be imported: .*module:function.*PYTHONPATH"):
        Architecture.from_keys({"build": name})


@pytest.mark.usefixtures("own_module")
def test_what_a_function_cannot_do_is_one_sentence():
    with pytest.raises(ValueError, match=r"returned NoneType, but a torch\.nn\.Module is needed"):
        own("nothing").build(channels=1, classes=10, side=32)
    with pytest.raises(ValueError, match=r"cannot be built by users_networks:linear .*missing 1 required .*'bias'"):
        own("linear").build(channels=1, classes=10, side=32)


def test_a_file_without_a_builder():
    with pytest.raises(ValueError, match=r"model\.build is missing"):
        Architecture.from_keys({"name": "x", "title": "X"})
