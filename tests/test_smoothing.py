"""Smoothing the last weights of a decoder is smoothing its outputs."""

import copy
import pickle

import numpy as np
import pytest
import torch

from skvae._flat import FlatParameters
from skvae._smoothing import BinSmoother
from skvae._table_model import TableDecoder

# One run of neighbouring bins, one of bins with a code in between, free codes.
RUNS = ([1, 2, 3, 4, 5], [7, 8, 10, 11])


@pytest.fixture
def decoder():
    generator = torch.Generator().manual_seed(0)
    net = TableDecoder(
        3,
        14,
        (8, 6),
        "silu",
        bin_runs=[np.array(run) for run in RUNS],
        width=1.5,
        generator=generator,
        dtype=torch.float64,
    )
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(generator=generator)
    return net


def _pass(net, z):
    z = z.clone().requires_grad_()
    out = net(z)
    (out * torch.arange(out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    grads = {name: p.grad.clone() for name, p in net.named_parameters()}
    return out.detach(), z.grad, grads


@pytest.mark.parametrize("shape", [(5, 3), (2, 4, 3)])
def test_one_node_has_the_outputs_and_gradients_of_the_graph(decoder, shape):
    z = torch.randn(shape, generator=torch.Generator().manual_seed(1)).double()
    expected = _pass(copy.deepcopy(decoder), z)
    flat = FlatParameters(decoder)
    flat.bind()
    for _ in range(2):
        flat.zero_grad()
        found = _pass(decoder, z)
        assert decoder._joined is not None
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_changed_weights_are_smoothed_anew(decoder):
    z = torch.ones(2, 3, dtype=torch.float64)
    flat = FlatParameters(decoder)
    flat.bind()
    decoder(z)
    flat.data.mul_(1.1)
    with torch.no_grad():
        expected = decoder(z)
    torch.testing.assert_close(decoder(z).detach(), expected, rtol=1e-10, atol=1e-10)


def test_second_derivatives_come_from_the_graph(decoder):
    flat = FlatParameters(decoder)
    flat.bind()
    z = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(decoder(z).sum(), z, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), z)
    flat.release()
    (first,) = torch.autograd.grad(decoder(z).sum(), z, create_graph=True)
    (expected,) = torch.autograd.grad(first.square().sum(), z)
    torch.testing.assert_close(second, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shape", [(14,), (3, 14), (2, 3, 14)])
def test_smoothing_is_a_product_with_the_kernels(shape):
    smoother = BinSmoother(RUNS, 1.5, 14, torch.float64)
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()
    matrix = torch.eye(14, dtype=torch.float64)
    for run in RUNS:
        steps = torch.arange(len(run))
        kernel = torch.exp(-0.5 * ((steps[:, None] - steps) / 1.5) ** 2).double()
        matrix[np.ix_(run, run)] = kernel / kernel.sum(0)
    torch.testing.assert_close(smoother(values), values @ matrix, rtol=1e-6, atol=1e-6)
    values.requires_grad_()
    assert torch.autograd.gradcheck(smoother, values)
    assert torch.autograd.gradgradcheck(
        smoother, values, values.detach().clone().requires_grad_()
    )


def test_parabolas_of_the_scores_stay_as_they_are():
    scores = np.arange(14) ** 2.0
    smoother = BinSmoother(RUNS, 1.5, 14, torch.float64, scores)
    parabola = torch.as_tensor(0.3 + 0.2 * scores - 0.01 * scores**2)
    torch.testing.assert_close(smoother(parabola), parabola)
    # What no parabola fits is smoothed as before.
    basis, _ = np.linalg.qr(np.vander(scores[1:6], 3))
    rest = torch.zeros(14, dtype=torch.float64)
    rest[1:6] = torch.as_tensor(np.eye(5)[2] - basis @ basis[2])
    plain = BinSmoother(RUNS, 1.5, 14, torch.float64)
    torch.testing.assert_close(smoother(rest), plain(rest))


def test_long_runs_without_codes_in_between_are_smoothed_as_a_whole():
    run = list(range(2, 12))
    line = torch.arange(14.0, dtype=torch.float64)
    short, long = (
        BinSmoother([run], width, 14, torch.float64, line.numpy())(line)
        for width in (2.0, 1.5)
    )
    torch.testing.assert_close(short, line)
    plain = BinSmoother([run], 1.5, 14, torch.float64)
    torch.testing.assert_close(long, plain(line))
    assert not torch.allclose(long, line)


def test_a_bound_decoder_can_be_copied(decoder):
    flat = FlatParameters(decoder)
    flat.bind()
    z = torch.ones(2, 3, dtype=torch.float64)
    expected = decoder(z).detach()
    flat.release()
    for other in (copy.deepcopy(decoder), pickle.loads(pickle.dumps(decoder))):
        assert other._joined is None
        torch.testing.assert_close(other(z).detach(), expected)
