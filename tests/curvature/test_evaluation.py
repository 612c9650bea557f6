"""float32 is float32 on every device: whatever the caller allows, no product of a curvature is rounded to TF32."""

import pytest
import torch
from torch import Tensor, nn

from repro.curvature.exact import exact_spectrum
from repro.curvature.example_gradients import ExampleGradients
from repro.curvature.hessian import Hessian


def precisions() -> list[str]:
    cudnn = torch.backends.cudnn
    backends = (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn)  # type: ignore[attr-defined]
    return [backend.fp32_precision for backend in backends]


class Witness(nn.Sequential):
    """A network that notes in which precision its passes are run."""

    def forward(self, x: Tensor) -> Tensor:
        self.__dict__.setdefault("seen", set()).update(precisions())
        return super().forward(x)


@pytest.fixture
def tf32():
    """As a user sets it who trains fast."""
    backend, before = torch.backends.cuda.matmul, torch.backends.cuda.matmul.fp32_precision
    backend.fp32_precision = "tf32"
    yield
    backend.fp32_precision = before


@pytest.mark.usefixtures("tf32")
@pytest.mark.parametrize(
    "use",
    [
        lambda model, x, y: Hessian(model, [(x, y)]) @ torch.ones(30),
        lambda model, x, y: exact_spectrum(model, [(x, y)]),
        lambda model, x, y: ExampleGradients(model, ["1.weight"])(x, torch.ones(len(x), 2, 3)),
    ],
    ids=["product", "exact spectrum", "gradients of examples"],
)
def test_tf32_is_off_inside_and_back_on_after(use):
    torch.manual_seed(0)
    model = Witness(nn.Flatten(), nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 3, bias=False)).eval()
    before = precisions()
    use(model, torch.randn(6, 1, 2, 3), torch.arange(6) % 3)
    assert model.__dict__["seen"] == {"ieee"}
    assert precisions() == before
    assert "tf32" in before
