"""A network of one's own: the library API, as a new user would call it."""

import inspect
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import preloaded
import pytest
import torch
from oracles import dense_gauss_newton, dense_hessian
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import repro
from repro import api
from repro.curvature.gauss_newton import GaussNewton
from repro.measurements import MEASUREMENTS, find_measurement
from repro.storage.results import load_result

ROOT = Path(__file__).resolve().parent.parent
SMALL = {"steps": 12}


OF_A_NETWORK = [name for name in MEASUREMENTS if find_measurement(name).of_network]


@pytest.fixture(scope="module")
def problem():
    """Three Gaussian classes and a network trained on them, float64."""
    torch.manual_seed(0)
    y = torch.arange(24) % 3
    x = torch.randn(24, 4, dtype=torch.float64) + 3 * nn.functional.one_hot(y, 4)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).double()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=1e-3)
    for _ in range(20):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    return model.eval(), x, y


def test_five_lines(problem, tmp_path):
    model, x, y = problem
    found = repro.spectrum(model, (x, y), **SMALL)
    exact = torch.linalg.eigvalsh(dense_hessian(model, x, y))
    top = exact[exact.abs().argsort(descending=True)][:3]
    converged = found.arrays["train_hessian_converged"]
    assert converged.any()
    np.testing.assert_allclose(found.outliers("train_hessian")[converged], top.detach().numpy()[converged], rtol=1e-5)
    curve = found.density("train_hessian")
    assert np.trapezoid(curve.density, curve.x) == pytest.approx(1 - converged.sum() / len(exact), abs=0.02)
    assert len(found.plot().axes) == 3  # Hess, G, E
    found.save(tmp_path / "found.npz")
    read = repro.load(tmp_path / "found.npz")
    assert (read.cell, read.provenance["measurement"]["steps"]) == (found.cell, 12)
    pd.testing.assert_frame_equal(read.frame(), found.frame())
    assert list(read.frame()["spectrum"].unique()) == found.spectra
    assert len(read.plot().axes) == 3
    assert repr(read) == repr(found)
    assert "train_hessian: P = 63," in repr(found)


def test_a_file_of_something_else_is_no_measurement(tmp_path):
    np.savez(tmp_path / "mine.npz", x=np.zeros(3))
    for name, error in (("mine.npz", ValueError), ("absent.npz", FileNotFoundError)):
        with pytest.raises(error, match=name):
            repro.load(tmp_path / name)


def test_what_the_package_offers():
    assert {"spectrum", "load", "Network", "__version__"} <= set(dir(repro))
    assert all(getattr(repro, name) is not None for name in dir(repro))


def test_without_steps_a_spectrum_ends_when_it_has_settled(problem):
    model, x, y = problem
    found = repro.spectrum(model, (x, y), outliers=1)
    assert found.spectrum("train_gauss_newton").steps < 63  # P: more than one look, fewer than exhaust the space
    assert found.spectrum("train_gauss_newton").converged.all()
    assert repro.spectrum(model, (x, y), outliers=1, steps=40).spectrum("train_gauss_newton").steps == 40


def test_few_outliers_of_many_classes_take_no_steps_for_each_class():
    torch.manual_seed(0)
    model, planned = nn.Linear(3, 200).eval(), []
    data, settings = (torch.randn(9, 3), torch.arange(9)), {"spectra": ["train_gauss_newton"], "outliers": 1}
    repro.spectrum(model, data, **settings, progress=lambda seen: planned.append(seen.planned))
    assert planned[0] < 200  # 128 steps and what confirms the pair


@pytest.mark.parametrize(
    ("function", "name"), [("spectrum", "hessian_spectrum"), ("knockouts", "gauss_newton_knockouts")]
)
def test_help_names_the_settings_with_their_defaults(function, name):
    shown = inspect.signature(getattr(repro, function)).parameters
    for field in fields(find_measurement(name).settings):
        assert shown[field.name].default == field.default
    assert {"checkpoint", "time_limit", "progress"} < set(shown)


def test_knockouts_and_operators(problem):
    model, x, y = problem
    parts = repro.knockouts(model, (x, y), **SMALL)
    assert set(parts.spectra) == {"full", "class", "cross", "within", "same"}
    structure = repro.class_structure(model, (x, y))
    class_part = torch.linalg.eigvalsh(structure.class_part.dense()).flip(0)[:3]
    np.testing.assert_allclose(parts.arrays["class_part"], class_part.numpy(), atol=1e-12)
    G = GaussNewton(model, repro.Network(model, (x, y)).batches())
    whole = (structure.class_part + structure.cross_part + structure.same_part + structure.within_part(G)).dense()
    torch.testing.assert_close(whole, dense_gauss_newton(model, x, y), rtol=0, atol=1e-12)
    assert parts.plot().axes


def test_any_form_of_data_gives_the_same_spectrum(problem):
    model, x, y = problem
    forms = [
        (x, y),
        [x, y],
        TensorDataset(x, y),
        DataLoader(TensorDataset(x, y), batch_size=5),
        [(x[:10], y[:10]), (x[10:], y[10:].int())],
        (batch for batch in [(x[:1], y[:1]), (x[1:], y[1:])]),
    ]
    found = [repro.spectrum(model, form, **SMALL).arrays["train_hessian_nodes"] for form in forms]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], atol=1e-10)


@pytest.mark.parametrize("name", OF_A_NETWORK)
def test_every_measurement_of_a_network_works_on_ones_own(problem, name):
    model, x, y = problem
    network = repro.Network(model, (x, y), (x[:9], y[:9]), weight_decay=1e-3, checkpoints={0: model, 5: model})
    known = {field.name for field in fields(find_measurement(name).settings)}
    found = repro.measure(name, network, **{key: value for key, value in SMALL.items() if key in known})
    assert found.name == name
    assert found.arrays
    assert all(isinstance(array, np.ndarray | np.generic) for array in found.arrays.values())


def test_spectra_of_another_loss(problem):
    model, x, _ = problem
    y = torch.randn(24, 3, dtype=torch.float64)
    found = repro.spectrum(model, (x, y), (x, y), loss=nn.MSELoss(), **SMALL)
    G = GaussNewton(model, [(x, y)], loss=nn.MSELoss())
    exact = torch.linalg.eigvalsh(G.dense()).flip(0)[:3]
    np.testing.assert_allclose(found.outliers("train_gauss_newton"), exact, rtol=1e-3)
    assert found.provenance["loss"] == "mean squared error"
    probes = repro.measure("density_probes", repro.Network(model, (x, y), loss=nn.MSELoss()), steps=8)
    assert probes.spectrum("deflated").dim == G.dim


def test_a_loss_without_g_is_refused_before_its_hessian_is_measured(problem, monkeypatch):
    model, x, _ = problem
    monkeypatch.setattr("repro.measurements.settings.LanczosSettings.estimate", None)
    with pytest.raises(ValueError, match="not convex in the outputs"):
        repro.spectrum(model, (x, torch.zeros(24, 3).double()), loss=lambda f, y: (f - y).square().log1p().mean())


def test_a_checkpoint_is_of_one_loss(problem):
    """Two losses of one name are told apart by what they do."""
    model, x, y = problem
    soft, real = [nn.CrossEntropyLoss(label_smoothing=s) for s in (0.1, 0.2)], [nn.HuberLoss(delta=d) for d in (0.1, 1)]
    weighted = [nn.CrossEntropyLoss(weight=torch.tensor([1.0, w, 1.0]).double()) for w in (1, 2)]
    for (one, other), targets in ((soft, y), (weighted, y), (real, nn.functional.one_hot(y, 3).double())):
        prints = [api._fingerprint(repro.Network(model, (x, targets), loss=loss)) for loss in (one, one, other)]
        assert prints[0] == prints[1] != prints[2]


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(weight=torch.ones(3).double()), nn.MSELoss(), nn.HuberLoss()])
def test_class_structure_is_of_the_plain_cross_entropy(problem, loss):
    model, x, y = problem
    if not isinstance(loss, nn.CrossEntropyLoss):
        y = nn.functional.one_hot(y, 3).double()
    for call in (repro.knockouts, repro.exact_spectrum, repro.class_structure):
        with pytest.raises(
            ValueError, match="is of the softmax cross-entropy of class labels, and this netw"
        ) as caught:
            call(model, (x, y), loss=loss)
        assert ".long()" not in str(caught.value)
    network = repro.Network(model, (x, y), (x, y), loss=loss)
    for name in OF_A_NETWORK:
        if not find_measurement(name).any_loss:
            with pytest.raises(ValueError, match=f"{name} is of the softmax cross-entropy of class labels"):
                repro.measure(name, network)
    with pytest.raises(ValueError, match=r"test_per_class, .* is of the softmax"):
        repro.measure("hessian_spectrum", network, test_per_class=2)


def test_figures_by_number(problem):
    model, x, y = problem
    found = repro.spectrum(model, (x, y), (x, y), **SMALL)
    assert len(found.plot(3).axes) == 2  # training and test
    assert len(found.plot("4").axes) == 3
    with pytest.raises(ValueError, match="figure 5 is not drawn from hessian_spectrum, which gives 3, 4"):
        found.plot(5)
    with pytest.raises(ValueError, match=r"figure 3 needs .*test_hessian.*not measured"):
        repro.spectrum(model, (x, y), **SMALL).plot(3)


def test_of_many_classes_is_drawn_what_was_measured(problem):
    """The inner products of their C² means are not stored, which Figure 2 shows."""
    model, x, y = problem
    found = repro.measure("class_means", repro.Network(model, (x, y)), stored_means=4)
    assert "cosines of $g_c$" in [ax.get_title() for ax in found.plot().axes]  # of x8
    with pytest.raises(ValueError, match="figure 2 needs 'means', which was not measured"):
        found.plot(2)


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda n: repro.measure("hessian_spectrm", n), ValueError, "Did you mean hessian_spectrum"),
        (lambda n: repro.measure("synthetic_spectra", n), ValueError, "measures no network"),
        (lambda n: repro.measure("hessian_spectrum", n, step=3), TypeError, "no setting 'step': did you mean steps"),
        (lambda n: repro.measure("hessian_spectrum", n, spectra=["test_hessian"]), ValueError, r"pass test=\.\.\."),
        (
            lambda n: repro.measure("hessian_spectrum", n, outliers=-2),
            ValueError,
            "outliers is -2; it must be at least 0",
        ),
        (lambda n: repro.measure("gauss_newton_knockouts", n, knockout="both"), ValueError, "one of 'subtraction', "),
        (lambda n: repro.measure("dynamics", n), ValueError, "no checkpoints"),
        (lambda n: repro.measure("dynamics", n, progress=3), TypeError, "progress is 3: True, False or a function"),
        (lambda n: repro.measure("dynamics", n, time_limit=0), ValueError, "time_limit is 0: a positive number"),
        (lambda n: repro.measure("weights", n), ValueError, "without weight decay"),
        (lambda n: repro.measure("layer_features", n).outliers("train"), ValueError, "no spectrum 'train'"),
    ],
)
def test_mistakes_get_a_sentence(problem, call, error, sentence):
    model, x, y = problem
    with pytest.raises(error, match=sentence) as caught:
        call(repro.Network(model, (x, y)))
    assert "\n" not in str(caught.value)


def test_import_is_light_and_unknown_names_are_refused():
    code = "import sys, repro; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
    with pytest.raises(AttributeError, match="spectre"):
        repro.spectre  # noqa: B018


class Attention(nn.Module):
    """A user's own network on token sequences: no convolution, no image."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.query, self.head = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, tokens):  # [B, T] -> [B, 3]
        h = self.embed(tokens)
        return self.head((torch.softmax(self.query(h) @ h.mT, dim=-1) @ h).mean(dim=1))


def test_a_users_own_network_on_tokens():
    torch.manual_seed(0)
    tokens, y = torch.randint(7, (15, 5)), torch.arange(15) % 3
    model = Attention().eval()
    found = repro.spectrum(model, (tokens, y), **SMALL)
    assert int(found.arrays["train_hessian_dim"]) == sum(p.numel() for p in model.parameters())
    assert repro.knockouts(model, (tokens, y), **SMALL).arrays["class_part"].shape == (3,)


@pytest.mark.slow
def test_an_architecture_of_torchvision():
    from torchvision.models import resnet18

    torch.manual_seed(0)
    images = TensorDataset(torch.randn(10, 3, 32, 32), torch.arange(10))
    found = repro.spectrum(resnet18(num_classes=10).eval(), images, steps=12, spectra=["train_hessian"])
    assert int(found.arrays["train_hessian_dim"]) == 11_181_642
    assert len(found.plot().axes) == 1


def test_weights_from_the_command_line(tmp_path):
    """`python -m repro measure` on a safetensors file and a function of a module in the working directory."""
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def build(channels, classes):\n"
        "    return nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(16 * channels, classes))\n"
    )
    torch.manual_seed(0)
    save_file(nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(16, 10)).state_dict(), tmp_path / "w.safetensors")
    command = ["-m repro measure", "weights=w.safetensors", "model=mine:build"]
    command += [
        "measurement=hessian_spectrum",
        "data=fashion_mnist_embedded",
        "n_per_class=3",
        "measurements.hessian_spectrum.steps=12",
    ]
    done = preloaded.run(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    again = preloaded.run(*command, "weights=absent.safetensors", cwd=tmp_path)
    assert (again.returncode, again.stderr) == (1, "error: there is no weights file absent.safetensors\n")
    (path,) = tmp_path.rglob("hessian_spectrum.npz")
    assert path.relative_to(tmp_path / "outputs/weights/w/results").parts[0] == "fashion_mnist_embedded"
    stored = load_result(path, None)
    assert int(stored.arrays["train_hessian_dim"]) == 170
    assert stored.provenance["measurement"]["steps"] == 12
    (tmp_path / "other").mkdir()
    torch.manual_seed(1)
    other = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(16, 10))
    save_file(other.state_dict(), tmp_path / "other/w.safetensors")
    refused = preloaded.run(*command, "weights=other/w.safetensors", cwd=tmp_path)
    assert refused.returncode == 1
    assert "outputs/weights/w holds results of the experiment 'weights ../w.safetensors', not of" in refused.stderr
    beside = preloaded.run(*command, "weights=other/w.safetensors", "name=other", cwd=tmp_path)
    assert beside.returncode == 0, beside.stderr
    assert len(list(tmp_path.rglob("hessian_spectrum.npz"))) == 2
