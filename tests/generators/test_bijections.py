"""Every bijection: inverted, and its log-determinant against the autograd Jacobian, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from synthaug.generators.glow.bijections import ActNorm, Bijection, InvertibleConv1x1, Squeeze, haar_matrix
from synthaug.generators.glow.checkerboard import CheckerboardCoupling, VariationalDequantiser
from synthaug.generators.glow.couplings import AffineCoupling, BorderCoupling, FlowStep
from synthaug.generators.glow.whitening import ClassWhitening, PrincipalRotation

CONTEXT = 3


class TinyNetwork(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv, self.label = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Linear(CONTEXT, outputs)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        return torch.tanh(self.conv(x)) * 2 + self.label(context)[:, :, None, None]


def coupling(channels=2, additive=False):
    kept = channels // 2
    outputs = (channels - kept) * (1 if additive else 2)
    return AffineCoupling(TinyNetwork(kept, outputs), kept, additive=additive)


CASES = {
    "squeeze": (Squeeze, 2, 4),
    "squeeze all": (lambda: Squeeze(4), 2, 4),
    "actnorm": (lambda: ActNorm(2), 2, 4),
    "conv": (lambda: InvertibleConv1x1(3), 3, 3),
    "affine": (coupling, 2, 4),
    "affine, odd channels": (lambda: coupling(3), 3, 3),
    "additive": (lambda: coupling(additive=True), 2, 4),
    "border": (lambda: BorderCoupling(TinyNetwork(2, 4), 4, 2), 2, 4),
    "border, uneven": (lambda: BorderCoupling(TinyNetwork(1, 2), 5, 4), 1, 5),
    "border, additive": (lambda: BorderCoupling(TinyNetwork(2, 2), 4, 2, additive=True), 2, 4),
    "checkerboard": (lambda: CheckerboardCoupling(TinyNetwork(2, 4), 4), 2, 4),
    "checkerboard, other colour": (lambda: CheckerboardCoupling(TinyNetwork(1, 2), 5, parity=1), 1, 5),
    "checkerboard, additive": (lambda: CheckerboardCoupling(TinyNetwork(1, 1), 4, additive=True), 1, 4),
    "haar": (lambda: InvertibleConv1x1(8, haar_matrix(2)), 8, 2),
    "rotation": (lambda: PrincipalRotation(5), 5, 1),
    "whitening": (lambda: ClassWhitening(3, 5), 5, 1),
    "step": (lambda: FlowStep(2, coupling()), 2, 4),
    "additive step": (lambda: FlowStep(3, coupling(3, additive=True)), 3, 3),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request):
    build, channels, size = request.param
    torch.manual_seed(0)
    layer = build().double()
    for parameter in layer.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    x = torch.randn(3, channels, size, size, dtype=torch.float64)
    layer.initialize(torch.randn(50, *x.shape[1:], dtype=torch.float64) + 1, torch.arange(50) % 3)
    if isinstance(layer, ClassWhitening):
        return layer, x, torch.tensor([0, 2, 1])
    return layer, x, torch.randn(3, CONTEXT, dtype=torch.float64)


def test_inverse_undoes_forward(case):
    layer, x, context = case
    y, logdet = layer(x, context)
    back, inverse_logdet = layer.inverse(y, context)
    torch.testing.assert_close(back, x)
    assert logdet.shape == (len(x),)
    torch.testing.assert_close(logdet, -inverse_logdet)


def jacobian_logdet(function, x):
    def flat(values):
        return function(values.view(1, *x.shape[1:]))[0].flatten()

    return torch.linalg.slogdet(torch.autograd.functional.jacobian(flat, x.flatten()))[1]


def test_logdet_is_that_of_the_jacobian_in_both_directions(case):
    layer, x, context = case
    y, logdet = layer(x, context)
    inverse_logdet = layer.inverse(y, context)[1]
    for row in range(2):
        one = slice(row, row + 1)
        forward = jacobian_logdet(lambda v, c=context[one]: layer(v, c), x[one])
        inverse = jacobian_logdet(lambda v, c=context[one]: layer.inverse(v, c), y[one].detach())
        torch.testing.assert_close(logdet[row], forward)
        torch.testing.assert_close(inverse_logdet[row], inverse)


def test_every_parameter_gets_a_gradient(case):
    layer, x, context = case
    y, logdet = layer(x, context)
    parameters = list(layer.parameters())
    if not parameters:
        assert not y.requires_grad
        return
    (y.pow(2).sum() + logdet.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in parameters)


def test_actnorm_starts_at_zero_mean_and_unit_deviation():
    x = torch.randn(64, 3, 4, 4) * torch.tensor([5.0, 0.2, 1.0]).view(1, 3, 1, 1) + 7
    layer = ActNorm(3)
    layer.initialize(x)
    y = layer(x)[0].transpose(0, 1).flatten(1)
    torch.testing.assert_close(y.mean(1), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(y.std(1, correction=0), torch.ones(3), atol=1e-4, rtol=0)


def test_actnorm_on_a_constant_channel_stays_finite():
    x = torch.ones(8, 2, 4, 4)
    layer = ActNorm(2)
    layer.initialize(x)
    y, logdet = layer(x)
    assert y.isfinite().all() and logdet.isfinite().all()
    assert y.abs().max() < 1e-3


def test_conv_starts_as_a_rotation():
    torch.manual_seed(0)
    layer = InvertibleConv1x1(6).double()
    gram = layer.weight() @ layer.weight().T
    torch.testing.assert_close(gram, torch.eye(6).double(), atol=1e-5, rtol=0)
    assert abs(float(layer.logdet(torch.zeros(1, 6, 2, 2)).detach())) < 1e-5


def test_haar_keeps_averages_and_is_a_rotation():
    matrix = haar_matrix(3)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(12))
    image = torch.rand(1, 3, 4, 4)
    average = torch.einsum("kc,nchw->nkhw", matrix, Squeeze()(image)[0])[:, :3] / 2
    torch.testing.assert_close(average, torch.nn.functional.avg_pool2d(image, 2))


def test_rotation_sorts_the_axes_by_variance():
    torch.manual_seed(0)
    x = (torch.randn(200, 4) @ torch.randn(4, 4))[:, :, None, None] + 3
    layer = PrincipalRotation(4)
    layer.initialize(x)
    covariance = torch.cov(layer(x)[0].flatten(1).T)
    variances = covariance.diagonal()
    torch.testing.assert_close(covariance, torch.diag(variances), atol=1e-4, rtol=0)
    assert variances.diff().max() <= 0 and layer(x)[0].mean(0).abs().max() < 1e-4


def test_whitening_starts_class_by_class_and_shrinks_rare_classes():
    torch.manual_seed(0)
    labels = torch.cat([torch.arange(2).repeat(2000), torch.tensor([2])])
    x = torch.randn(4001, 3).double() * (1 + 4 * labels[:, None]) + labels[:, None]
    layer = ClassWhitening(4, 3).double()
    layer.initialize(x[:, :, None, None], labels)
    y = layer(x[:, :, None, None], labels)[0].flatten(1)
    for label in range(2):
        rows = y[labels == label]
        torch.testing.assert_close(torch.cov(rows.T), torch.eye(3).double(), atol=0.02, rtol=0)
        assert rows.mean(0).abs().max() < 0.02
    assert y.isfinite().all() and all(p.isfinite().all() for p in layer.parameters())
    assert layer.log_diagonal[0].mean() > layer.log_diagonal[3].mean() > layer.log_diagonal[1].mean()


def test_whitening_is_the_same_for_few_rows_and_for_many():
    torch.manual_seed(0)
    layer, x = ClassWhitening(5, 3).double(), torch.randn(8, 3, 1, 1).double()
    for parameter in layer.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    labels = torch.arange(8) % 5
    torch.testing.assert_close(layer(x[:2], labels[:2])[0], layer(x, labels)[0][:2])


def test_class_wise_layer_asks_for_labels():
    with pytest.raises(ValueError, match="labels"):
        ClassWhitening(2, 2)(torch.zeros(1, 2, 1, 1))


def test_coupling_scale_is_bounded():
    layer = coupling().double()
    layer.network.conv.bias.data += 1e6
    y, logdet = layer(torch.randn(1, 2, 4, 4).double(), torch.zeros(1, CONTEXT).double())
    assert y.isfinite().all() and float(logdet.detach().abs()) <= 2.0 * 16


def test_checkerboards_of_both_colours_reach_every_pixel():
    x, context = torch.randn(2, 1, 5, 5), torch.randn(2, CONTEXT)
    moved = [CheckerboardCoupling(TinyNetwork(1, 2), 5, parity=parity)(x, context)[0].ne(x)[0, 0] for parity in (0, 1)]
    assert moved[0].sum() == 12 and torch.equal(moved[0], ~moved[1])
    assert not moved[0][0, 0] and moved[0][0, 1] and moved[0][1, 0]


def test_a_checkerboard_sees_what_lies_beside():
    x, context = torch.randn(1, 1, 4, 4), torch.zeros(1, CONTEXT)
    layer = CheckerboardCoupling(TinyNetwork(2, 2), 4)
    beside = torch.randn(1, 1, 4, 4)
    y, logdet = layer(x, context, beside=beside)
    assert not torch.allclose(y, layer(x, context, beside=beside + 1)[0])
    back, minus = layer.inverse(y, context, beside=beside)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(minus, -logdet)


def dequantiser(size=3):
    torch.manual_seed(0)
    layer = VariationalDequantiser([TinyNetwork(2, 2) for _ in range(3)], size).double()
    for parameter in layer.parameters():
        parameter.data *= 0.5  # near 0 and 1 the reference, 1 - sigmoid, has few digits
    return layer


def test_dequantisation_density_is_that_of_the_jacobian():
    layer, images = dequantiser(), torch.rand(2, 1, 3, 3).double() * 2 - 1
    uniform, context = torch.rand(2, 1, 3, 3).double() * 0.98 + 0.01, torch.randn(2, CONTEXT).double()
    placed, log_q = layer(uniform, images, context)
    assert placed.min() > 0 and placed.max() < 1 and log_q.abs().max() > 0.1
    for row in range(2):
        one = slice(row, row + 1)
        logdet = jacobian_logdet(lambda v, one=one: layer(v, images[one], context[one])[0], uniform[one])
        torch.testing.assert_close(log_q[row], -logdet)


def test_dequantisation_starts_uniform_and_bears_the_ends_of_the_interval():
    layer = VariationalDequantiser([TinyNetwork(2, 2) for _ in range(2)], 3)
    edge = torch.tensor([0.0, 1 - 2**-24, 0.5]).expand(1, 1, 3, 3)
    placed, log_q = layer(edge, torch.zeros(1, 1, 3, 3), torch.zeros(1, CONTEXT))
    assert placed.isfinite().all() and log_q.isfinite().all()
    for parameter in layer.parameters():
        parameter.data.zero_()
    uniform = torch.rand(4, 1, 3, 3)
    placed, log_q = layer(uniform, torch.zeros(4, 1, 3, 3), torch.zeros(4, CONTEXT))
    torch.testing.assert_close(placed, uniform)
    torch.testing.assert_close(log_q, torch.zeros(4))


def test_bijection_initializes_nothing_by_default():
    layer: Bijection = coupling()
    before = [p.clone() for p in layer.parameters()]
    layer.initialize(torch.randn(2, 2, 4, 4))
    assert all(torch.equal(a, b) for a, b in zip(before, layer.parameters(), strict=True))
