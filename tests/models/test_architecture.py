"""Networks by name: the paper's parameter counts, configurations, and a user's own function."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from repro.models import MODELS, build

CONF = Path(__file__).parents[2] / "conf" / "model"


def settings(name):
    return yaml.safe_load((CONF / f"{name}.yaml").read_text())


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_every_network_has_its_file():
    assert sorted(MODELS) == sorted(path.stem for path in CONF.glob("*.yaml"))


def mlp_count(inputs, classes):  # 7 hidden layers of 2048 without bias, 7 batch norms, the head
    return inputs * 2048 + 6 * 2048**2 + 7 * 2 * 2048 + 2048 * classes + classes


def densenet_count(channels, classes):
    total, features = 9 * channels * 24, 24
    for block in range(3):
        total += sum(2 * c + 9 * c * 12 for c in range(features, features + 144, 12))
        features += 144
        total += 2 * features + (features**2 if block < 2 else features * classes + classes)
    return total


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("vgg11", {(1, 10): 28_156_554, (3, 10): 28_157_706, (3, 100): 28_526_436}),
        ("resnet18", {(1, 10): 11_172_810, (3, 10): 11_173_962, (3, 100): 11_220_132}),
        ("mlp", {(1, 10): mlp_count(1024, 10), (3, 100): mlp_count(3072, 100)}),
        ("densenet40", {(1, 10): densenet_count(1, 10), (3, 10): densenet_count(3, 10)}),
    ],
)
def test_parameter_counts(name, counts):
    for (channels, classes), expected in counts.items():
        assert count(build(channels=channels, classes=classes, **settings(name))) == expected


@pytest.mark.parametrize(("name", "linear", "conv"), [("vgg11", 3, 8), ("mlp", 8, 0), ("densenet40", 1, 39)])
def test_depth(name, linear, conv):
    layers = list(build(channels=1, classes=10, **settings(name) | {"width": 0.05}).modules())
    assert sum(isinstance(layer, nn.Linear) for layer in layers) == linear
    assert sum(isinstance(layer, nn.Conv2d) for layer in layers) == conv


def test_resnet_depth():
    convs = [m for m in build("resnet18", channels=1, classes=10, width=0.05).modules() if isinstance(m, nn.Conv2d)]
    assert [conv.kernel_size for conv in convs].count((3, 3)) == 17
    assert [conv.kernel_size for conv in convs].count((1, 1)) == 3
    assert all(conv.bias is None for conv in convs)


def test_mlp_of_another_depth():
    assert [len(build("mlp", channels=1, classes=10, width=0.01, layers=k, bias=True).layers) for k in (1, 9)] == [
        2,
        26,
    ]
    with pytest.raises(ValueError, match="layers=0"):
        build("mlp", channels=1, classes=10, width=0.01, layers=0, bias=False)


@pytest.mark.parametrize("name", MODELS)
def test_width_scales_every_hidden_layer(name):
    half = build(channels=3, classes=7, **settings(name) | {"width": 0.5})
    full = build(channels=3, classes=7, **settings(name))
    for a, b in zip(half.modules(), full.modules(), strict=True):
        if isinstance(a, nn.BatchNorm1d | nn.BatchNorm2d):
            assert 2 * a.num_features == b.num_features
    tiny = build(channels=3, classes=7, **settings(name) | {"width": 1e-6}).eval()  # no layer vanishes
    assert tiny(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize("width", [0, -1.0, float("nan")])
def test_width_must_be_positive(width):
    with pytest.raises(ValueError, match="must be positive"):
        build("vgg11", channels=1, classes=10, width=width)


def test_same_seed_same_weights():
    def weights(seed):
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in build("resnet18", channels=1, classes=10, width=0.1).parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_unknown_network_names_the_near_ones():
    with pytest.raises(ValueError, match="no network 'vgg'; did you mean one of vgg11"):
        build("vgg", channels=1, classes=10)


def test_wrong_setting_is_one_sentence():
    with pytest.raises(ValueError, match=r"'vgg11' cannot be built .*unexpected keyword argument 'widht'"):
        build("vgg11", channels=1, classes=10, widht=1.0)


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """An importable module of a user."""
    (tmp_path / "users_networks.py").write_text(
        "from torch import nn\n"
        "def linear(channels, classes, bias):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(channels * 1024, classes, bias=bias))\n"
        "def nothing(channels, classes):\n"
        "    return None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("own_module")
def test_function_of_a_users_module():
    model = build("users_networks:linear", channels=3, classes=4, bias=False)
    assert count(model) == 3 * 1024 * 4


@pytest.mark.usefixtures("own_module")
@pytest.mark.parametrize("name", ["users_networks:absent", "no_such_module:linear", "users_networks:", ":linear"])
def test_function_that_is_not_there(name):
    with pytest.raises(ValueError, match=f"network '{name}' cannot be imported"):
        build(name, channels=1, classes=10)


@pytest.mark.usefixtures("own_module")
def test_function_that_returns_no_network():
    with pytest.raises(ValueError, match=r"returned NoneType, but a torch\.nn\.Module is needed"):
        build("users_networks:nothing", channels=1, classes=10)
