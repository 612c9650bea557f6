"""What a user can get wrong is refused in one clear sentence: what is wrong, where, what to do."""

import errno

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import eigsh
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.datasets import FakeData

import repro
from repro.linalg.eigenpairs import top_eigenpairs
from repro.linalg.lanczos import fast_lanczos
from repro.linalg.operator import Dense
from repro.linalg.spectrum import spectrum
from repro.measurements import find_measurement
from repro.storage import results as store
from repro.storage.files import write_atomically
from repro.storage.results import load_result, save_result

X, Y = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)), torch.arange(9) % 3


def network(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), *layers, nn.Linear(4, 3)).eval()


def refused(sentence, error=ValueError):
    """pytest.raises for a message of one line."""
    return pytest.raises(error, match=rf"\A[^\n]*{sentence}[^\n]*\Z")


class Function(nn.Module):
    """A network with a function of its own at the end."""

    def __init__(self, function) -> None:
        super().__init__()
        self.body, self.function = network(), function

    def forward(self, x):
        return self.function(self.body(x))


class Subtracting(nn.Module):
    def forward(self, x):
        return x.sub_(1)


class InInferenceMode(nn.Module):
    @torch.inference_mode()
    def forward(self, x):
        return 2 * x


# Models ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.BatchNorm1d(4), nn.Tanh()])
def test_models_in_train_mode(layer):
    with refused(r"train mode.*call model.eval\(\) first"):
        repro.Network(network(layer).train(), (X, Y))


def test_gradients_switched_off():
    with torch.no_grad(), refused("outside of torch.no_grad"):
        repro.Network(network(), (X, Y))


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (lambda z: nn.functional.dropout(z, 0.5), "change between two passes .* random numbers"),
        (lambda z: z - z.mean(dim=0), "depend on the other examples of its batch"),
        (lambda z: z * (torch.arange(len(z)) < 4)[:, None], "depend on the other examples of its batch"),
        (lambda z: z.detach(), "logits carry no gradient"),
        (lambda z: z.argmax(dim=1), r"returns \[9\] for 9 examples: logits of shape \[examples, classes\]"),
        (lambda z: {"scores": z}, "returns a dict, in which there are no logits"),
        (lambda z: z[:, :1], "1 logit.* at least 2 classes"),
        (lambda z: z * float("inf"), "outputs that are not finite"),
    ],
)
def test_models_that_are_no_fixed_classifier(function, sentence):
    with refused(sentence):
        repro.Network(Function(function).eval(), (X, Y * 0 if "1 logit" in sentence else Y))


def test_a_loss_that_overflows():
    with refused("cross-entropy is inf although the outputs are finite.*use float64"):
        repro.spectrum(Function(lambda z: z.sign() * 3e38).eval(), (X, Y))


def test_parameters_without_gradient():
    model = network()
    model.extra = nn.Parameter(torch.ones(2))  # no layer: Sequential does not execute it
    with refused("'extra' has no gradient, as no example's logits depend on it: remove it"):
        repro.Network(model, (X, Y))


def test_frozen_parameters_are_measured_like_the_others():
    """Whether a parameter was trained says nothing of the loss's curvature."""
    model = network()
    whole = repro.spectrum(model, (X, Y), steps=12)
    model[0].weight.requires_grad_(False)
    frozen = repro.spectrum(model, (X, Y), steps=12)
    for name, array in whole.arrays.items():
        np.testing.assert_array_equal(frozen.arrays[name], array, err_msg=name)
    assert not model[0].weight.requires_grad


def test_mixed_dtypes_and_devices():
    for model, sentence in [
        (network().double(), "model is torch.float64, the inputs are torch.float32.*convert"),
        (nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3).double()).eval(), "'1.weight' is torch.float64 .*move the"),
        (nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3, device="meta")).eval(), "'1.weight' .* on meta, but"),
    ]:
        with refused(sentence):
            repro.Network(model, (X, Y))
    model = network(nn.BatchNorm1d(4))
    model[1].running_var = model[1].running_var.double()
    with refused("'1.running_var' is torch.float64"):
        repro.Network(model, (X, Y))


def test_weights_that_are_not_finite():
    model = network()
    with torch.no_grad():
        model[1].bias[0] = float("nan")
    with refused("'1.bias' holds values that are not finite"):
        repro.Network(model, (X, Y))


def test_what_is_no_network():
    with refused("the model is a OrderedDict: a torch.nn.Module is needed", TypeError):
        repro.Network(network().state_dict(), (X, Y))
    with refused("no parameters to differentiate"):
        repro.Network(nn.Flatten().eval(), (X, Y))


def test_infinities_in_a_mask_are_no_weights():
    model = network()
    model.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))
    repro.Network(model, (X, Y))


def test_lazy_layers():
    for lazy in (nn.LazyLinear(3), nn.Sequential(nn.Linear(4, 3), nn.LazyBatchNorm1d())):
        with refused("weight' has no shape yet: run the model once on a batch"):
            repro.Network(lazy.eval(), (X, Y))


def test_complex_parameters():
    model = network()
    model.w = nn.Parameter(torch.ones(2, dtype=torch.cfloat))
    with refused("'w' is torch.complex64.*use torch.view_as_complex"):
        repro.Network(model, (X, Y))


def test_inputs_that_the_network_changes():
    with refused(r"changes its inputs in place.*x\.clone\(\)"):
        repro.Network(nn.Sequential(Subtracting(), network()).eval(), (X.clone(), Y))


def test_a_part_in_inference_mode():
    with refused("Inference tensors cannot be saved for backward"):
        repro.Network(nn.Sequential(InInferenceMode(), network()).eval(), (X, Y), parameters="1")


def test_half_precision():
    with refused("'0.weight' is torch.bfloat16: convert the model to float32 or float64"):
        repro.Network(network().bfloat16(), (X.bfloat16(), Y))


def test_checkpoints_of_another_architecture_than_the_model():
    with refused("checkpoint of epoch 3 is of another architecture than the model: '1.weight' differs"):
        repro.Network(network(), (X, Y), checkpoints={0: network(), 3: network(nn.Linear(4, 4)).eval()})


# Data -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ((X, Y.float()), "labels are torch.float32: class indices are needed"),
        ((X, Y + 1), r"labels run from 1 to 3, .* labels must lie in 0\.\.2"),
        ((X, Y - 1), "labels run from -1 to 1"),
        ((X, Y[:5]), "exactly one label for each"),
        ((X, nn.functional.one_hot(Y)), "exactly one label for each"),
        ([], "no data"),
        (({"x": X, "edges": X.T}, Y), "exactly one label for each; let the model hold what all examples share"),
        ((X.to(torch.uint8), Y), "inputs are uint8"),
        ((X / 0, Y), "outputs that are not finite"),
        (DataLoader(TensorDataset(X, Y), batch_size=4, drop_last=True), "drop_last=True"),
    ],
)
def test_unfit_data(data, sentence):
    with refused(sentence):
        repro.Network(network(), data)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ((X, Y.clamp(max=1)), r"no training example of class 2 \(1 of 3 classes\)"),
        ((X, Y * 0), r"no training example of class 1, 2 \(2 of 3 classes\)"),
        ((X[:2], Y[:2]), "2 examples for 3 classes"),
    ],
)
def test_class_means_need_every_class_and_spectra_do_not(data, sentence):
    with refused(sentence):
        repro.class_structure(network(), data)
    for name in ("gauss_newton_knockouts", "class_means", "alignment", "layer_features", "layer_errors"):
        with refused(sentence):
            repro.measure(name, repro.Network(network(), data))
    assert np.isfinite(repro.spectrum(network(), data, steps=12).outliers("train_hessian")).all()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (X, "the data are a Tensor: tensors"),
        (3, "the data are a int: tensors"),
        ({"train": (X, Y)}, "a batch of the data is a mapping of train, without .labels."),
        ([{"x": X, "y": Y}], "a batch of the data is a mapping of x, y, without .labels.: name them so"),
        ((X.to_sparse(), Y), r"the inputs of a batch are sparse: make them dense, x.to_dense\(\)"),
        (np.zeros((3, 4)), "a batch of the data is a ndarray"),
        (TensorDataset(X), r"a batch of the data is a list of 1: a pair \(inputs, labels\)"),
    ],
)
def test_data_in_no_known_form(data, sentence):
    with refused(sentence, TypeError):
        repro.Network(network(), data)


def test_images_that_are_no_tensors():
    images = FakeData(6, (3, 8, 8), 3)
    with refused(
        r"found .*PIL.*; give the data set a transform that makes tensors, ToTensor\(\) for images", TypeError
    ):
        repro.Network(network(), images)


def test_inputs_of_another_shape():
    with refused(r"does not take inputs of shape \[9, 3\]: RuntimeError: .*cannot be multiplied"):
        repro.Network(network(), (X[:, :3], Y))
    with refused(r"does not take inputs of shape \[9\]: IndexError: index out of range"):
        repro.Network(nn.Sequential(nn.Embedding(8, 4), network()).eval(), (torch.arange(9), Y))


# Operators ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_operators_that_are_not_symmetric(dtype):
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(30, 30, generator=generator, dtype=dtype)
    settings = {"tolerance": 1e-3, "memory_budget": 2**30, "seed": 0}
    for run in (
        lambda M: spectrum(Dense(M), k=3, steps=8, probes=1, **settings),
        lambda M: fast_lanczos(Dense(M), 5),
        lambda M: top_eigenpairs(Dense(M), 3, max_products=20, **settings),
    ):
        with refused("Dense is not one fixed symmetric matrix"):
            run(A)
        with refused("Dense: a product with a random vector is not finite"):
            run(A * float("nan"))
        run(A + A.T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scipy_finds_the_same_eigenvalues(dtype):
    A = torch.randn(20, 20, generator=torch.Generator().manual_seed(0), dtype=dtype)
    exported = Dense(A + A.T).scipy()
    assert exported.dtype == torch.empty(0, dtype=dtype).numpy().dtype
    exact = torch.linalg.eigvalsh((A + A.T).double()).numpy()
    found = eigsh(exported, k=4, which="LA", return_eigenvectors=False)
    np.testing.assert_allclose(np.sort(found), exact[-4:], rtol=1e-4 if dtype == torch.float32 else 1e-10)
    V = np.ones((20, 3))
    np.testing.assert_allclose(exported @ V, (A + A.T).numpy() @ V, rtol=1e-4)
    np.testing.assert_allclose(exported.T @ V, exported @ V)


# Files ----------------------------------------------------------------------------------------------------------------


def test_a_tampered_result_file(tmp_path):
    path = tmp_path / "x.npz"
    save_result(path, {"a": np.arange(1000.0)}, {"code": "abc"})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with refused("damaged.*delete it"):
        load_result(path, None)
    np.savez(path, a=np.arange(3))
    with refused("damaged.*no digest of its content.*delete it"):
        load_result(path, None)


def test_a_full_disk(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "x.npz"
    monkeypatch.setattr(store.np, "savez_compressed", full)
    with refused(r"cannot write .*x\.npz: No space left on device; make room", OSError) as caught:
        save_result(path, {"a": np.arange(3)}, {})
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_cannot_be_written(tmp_path):
    (tmp_path / "outputs").write_text("a file where a folder should be")
    with refused("cannot write .*result.json: .*choose a folder you may write to", OSError):
        write_atomically(tmp_path / "outputs" / "embedded" / "result.json", lambda p: p.write_text("{}"))


# Names ----------------------------------------------------------------------------------------------------------------


def test_unknown_measurements_name_the_near_ones():
    with refused(r"no measurement 'layer_feature'\. Did you mean layer_features"):
        find_measurement("layer_feature")
    with refused(r"no measurement '\.\./x'\. There are: "):
        find_measurement("../x")


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("layer_features", {"sharing": "expnd"}, "sharing is 'expnd'; it must be one of 'expand', 'reduce'"),
        (
            "gauss_newton_knockouts",
            {"knockout": None},
            "knockout is None; it must be one of 'subtraction', 'projection'",
        ),
        ("kronecker_factors", {"layers": [0, 7]}, "layers: there is no layer 7; the network has 2, counted from 0"),
        ("kronecker_factors", {"layers": [-3]}, "there is no layer -3"),
        ("hessian_spectrum", {"spectra": ["train_hesian"]}, "spectra: 'train_hesian' is not"),
        ("hessian_spectrum", {"spectra": "train_hessian"}, "spectra is 'train_hessian': a list is needed"),
        ("hessian_spectrum", {"steps": "20"}, "steps is '20': a whole number is needed"),
        ("gauss_newton_knockouts", {"seed": 0.5}, "seed is 0.5: a whole number is needed"),
        ("dynamics", {"memory_bytes": "8GB"}, "memory_bytes is '8GB': a number is needed"),
    ],
)
def test_settings_that_a_measurement_does_not_know(name, settings, sentence):
    with refused(sentence, (ValueError, TypeError)):
        repro.measure(name, repro.Network(network(), (X, Y)), **settings)
