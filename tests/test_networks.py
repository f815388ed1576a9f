"""Networks: the fused pass, flat buffers, tied and convolutional nets, own modules."""

import copy
import pickle
import threading

import pytest
import torch
from numpy.testing import assert_allclose
from sklearn.base import clone
from torch import nn

from skvae._factories import ConvDecoder, ConvEncoder, build_network
from skvae._flat import FlatParameters
from skvae._fused import ACTIVATIONS, get_activation
from skvae._networks import LinearPlusMLP, TiedDecoder

SHAPES = [
    {"hidden_layer_sizes": (8, 7)},
    {"hidden_layer_sizes": (8,), "n_linear": 2},
    {"hidden_layer_sizes": (8, 7), "n_linear": 1},
    {"hidden_layer_sizes": (8,), "linear": False},
    {"hidden_layer_sizes": ()},
    {"hidden_layer_sizes": (), "n_linear": 2},
    {"hidden_layer_sizes": (), "linear": False},
]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=1, dtype=torch.float64):
    return torch.empty(shape, dtype=dtype).normal_(generator=seeded(seed))


def make(dtype=torch.float64, **kwargs):
    """A network 5 -> 4 whose every parameter is away from zero, and its buffers."""
    kwargs = {"hidden_layer_sizes": (8, 7), "zero_last": False, **kwargs}
    net = LinearPlusMLP(5, 4, generator=seeded(), dtype=dtype, **kwargs)
    with torch.no_grad():
        for p in (net.bias, *net.biases):
            p.normal_(generator=seeded(2))
        net.in_scale.uniform_(0.5, 2.0, generator=seeded(3))
    return net, FlatParameters(net)


def both_ways(net, flat, x, times=1):
    """Output and gradients (parameters, x), fused and by plain autograd."""
    found = []
    for turn in (flat.bind, flat.unbind):
        turn()
        flat.zero_grad()
        x = x.detach().requires_grad_()
        outs = [net(x * (1 + i)) for i in range(times)]
        is_fused = type(outs[0].grad_fn).__name__ == "_FusedBackward"
        assert is_fused == (turn == flat.bind)
        sum((out * torch.cos(out)).sum() for out in outs).backward()
        found.append((outs[0].detach(), flat.grad.clone(), x.grad))
    return found


def assert_same(found, tolerance):
    for fused, plain in zip(*found, strict=True):
        scale = max([1.0, *plain.abs().ravel().tolist()])
        assert_allclose(fused.numpy() / scale, plain.numpy() / scale, atol=tolerance)


@pytest.mark.parametrize("kwargs", SHAPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_fused_gradients_equal_autograd(activation, kwargs):
    net, flat = make(activation=activation, **kwargs)
    assert_same(both_ways(net, flat, normal(9, 5)), 1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_fused_gradients_equal_autograd_in_float32(activation):
    net, flat = make(torch.float32, activation=activation)
    assert_same(both_ways(net, flat, normal(9, 5, dtype=torch.float32)), 1e-5)


@pytest.mark.parametrize("shape", [(5,), (3, 9, 5), (2, 3, 4, 5), (1, 5), (0, 5)])
def test_fused_pass_takes_any_leading_axes(shape):
    net, flat = make(n_linear=2)
    found = both_ways(net, flat, normal(*shape))
    assert found[0][0].shape == (*shape[:-1], 4)
    assert_same(found, 1e-12)


def test_fused_pass_takes_inputs_that_are_not_contiguous():
    net, flat = make()
    assert_same(both_ways(net, flat, normal(5, 3, 9).transpose(0, 2)), 1e-12)


def test_two_forward_passes_before_backward_do_not_disturb_each_other():
    net, flat = make(n_linear=2)
    assert_same(both_ways(net, flat, normal(9, 5), times=3), 1e-12)


def test_batches_of_changing_size_give_the_same_gradients():
    net, flat = make()
    for n in (9, 4, 9):
        assert_same(both_ways(net, flat, normal(n, 5)), 1e-12)


def test_two_instances_train_in_two_threads():
    pairs = [make(), make()]
    x = normal(64, 5)

    def work(net):
        for _ in range(20):
            net(x).square().sum().backward()

    threads = [threading.Thread(target=work, args=(net,)) for net, _ in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = make()
    for _ in range(20):
        expected[0](x).square().sum().backward()
    for _, flat in pairs:
        assert torch.equal(flat.grad, expected[1].grad)


def test_gradients_accumulate_over_retained_backwards():
    net, flat = make()
    loss = net(normal(9, 5)).square().sum()
    loss.backward(retain_graph=True)
    once = flat.grad.clone()
    loss.backward()
    assert_allclose(flat.grad, 2 * once, rtol=1e-12)


def test_gradient_of_the_input_leaves_those_of_the_weights_alone():
    net, flat = make()
    x = normal(9, 5).requires_grad_()
    (fused,) = torch.autograd.grad(net(x).sum(), x)
    assert not flat.grad.any()
    (plain,) = torch.autograd.grad(net.plain_forward(x).sum(), x)
    assert_allclose(fused, plain, atol=1e-12)


def test_penalty_on_the_input_gradient_trains_the_weights_while_bound():
    net, flat = make()
    grads = []
    for turn in (flat.bind, flat.unbind):
        turn()
        flat.zero_grad()
        x = normal(9, 5).requires_grad_()
        (g,) = torch.autograd.grad(net(x).square().sum(), x, create_graph=True)
        g.square().sum().backward()
        grads.append(flat.grad.clone())
    assert grads[1].any()
    assert_allclose(grads[0], grads[1], atol=1e-10)


@pytest.mark.usefixtures("torch_layers")
@pytest.mark.parametrize("kwargs", SHAPES)
def test_plain_pass_has_first_and_second_derivatives(kwargs):
    net, flat = make(**kwargs)
    flat.unbind()
    x = normal(3, 5).requires_grad_()
    assert torch.autograd.gradcheck(net, x)
    assert torch.autograd.gradgradcheck(net, x)


def test_inference_mode_and_no_grad_give_the_training_output():
    net, _ = make()
    x = normal(9, 5)
    expected = net(x).detach()
    with torch.inference_mode():
        assert torch.equal(net.eval()(x), net.plain_forward(x))
        assert_allclose(net(x), expected, atol=1e-14)
    with torch.no_grad():
        assert not net(x).requires_grad


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_closed_form_derivative_equals_autograd(name):
    activation = get_activation(name)
    pre = torch.linspace(-4.05, 4.05, 82, dtype=torch.float64).requires_grad_()
    (expected,) = torch.autograd.grad(activation(pre).sum(), pre)
    assert_allclose(activation.derivative(pre).detach(), expected, atol=1e-12)


@pytest.mark.parametrize(
    "name", ["silu", "tanh", "logistic", "gelu", "elu", "softplus"]
)
def test_derivative_can_be_differentiated(name):
    activation = get_activation(name)
    pre = normal(6).requires_grad_()
    assert torch.autograd.gradcheck(activation.derivative, pre)


def test_unknown_activation_names_the_parameter():
    with pytest.raises(ValueError, match="'activation' parameter must be"):
        LinearPlusMLP(3, 2, activation="swish")


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"n_linear": 3}, "n_linear must be in"),
        ({"n_linear": 0}, "n_linear must be in"),
        ({"hidden_layer_sizes": (0,)}, "hidden_layer_sizes must be >= 1"),
        ({"dropout": 1.0}, "dropout must be in"),
    ],
)
def test_sizes_out_of_range_are_rejected(kwargs, match):
    with pytest.raises(ValueError, match=match):
        LinearPlusMLP(3, 2, **kwargs)


def test_start_equals_the_linear_model_and_n_linear_limits_it():
    net = LinearPlusMLP(5, 4, (8, 7), n_linear=2, generator=seeded())
    x = normal(9, 5, dtype=torch.float32)
    assert torch.equal(net(x)[:, :2], x @ net.linear_weight.T)
    assert not net(x)[:, 2:].any()


def test_hidden_weights_have_the_variance_of_he():
    net = LinearPlusMLP(200, 3, (400,), generator=seeded())
    assert_allclose(net.weights[0].std().item(), (2 / 200) ** 0.5, rtol=0.02)


def test_generator_decides_the_weights_and_global_state_is_untouched():
    before = torch.get_rng_state()
    nets = [LinearPlusMLP(5, 4, generator=seeded(s)) for s in (0, 0, 1)]
    LinearPlusMLP(5, 4)
    ConvEncoder((4, 4))(16, 2)
    ConvDecoder((4, 4))(2, 16)
    first, same, other = (nn.utils.parameters_to_vector(n.parameters()) for n in nets)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_follows_its_generator_and_is_off_in_eval():
    net, _ = make(dropout=0.5)
    x = normal(9, 5)
    before = torch.get_rng_state()
    outs = []
    for seed in (0, 0, 1):
        net.dropout_generator = seeded(seed)
        outs.append(net(x))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(net.eval()(x), net(x))


def test_dropout_keeps_the_mean_of_the_hidden_units():
    net, _ = make(dropout=0.3, hidden_layer_sizes=(8,))
    x = normal(1, 5)
    expected = net.eval()(x)
    net.train().dropout_generator = seeded()
    mean = net(x.expand(50_000, -1)).mean(dim=0)
    assert_allclose(mean.detach(), expected[0].detach(), atol=0.05)


def test_dropout_without_a_generator_is_an_error():
    net, _ = make(dropout=0.5)
    with pytest.raises(RuntimeError, match="dropout_generator"):
        net(normal(2, 5))


def test_pre_activations_lead_to_the_output():
    net, _ = make(linear=False)
    x = normal(9, 5)
    *_, last = net.pre_activations(x)
    out = torch.nn.functional.silu(last) @ net.weights[-1].T + net.bias
    assert_allclose(out.detach(), net(x).detach(), atol=1e-12)


# -- flat parameters ---------------------------------------------------------------
def own_module():
    torch_layers = [nn.Linear(5, 6), nn.Tanh(), nn.BatchNorm1d(6), nn.Linear(6, 5)]
    return build_network(
        lambda i, o: nn.Sequential(*copy.deepcopy(torch_layers)),
        5,
        5,
        generator=seeded(),
    )


def test_parameters_are_aligned_views_with_weights_first():
    net, flat = make(torch.float32)
    for p in net.parameters():
        assert p.data_ptr() % 64 == 0
        inside = flat.weights if p.dim() >= 2 else flat.others
        start = inside.data_ptr()
        assert start <= p.data_ptr() < start + inside.numel() * 4
        assert (
            start - flat.data.data_ptr()
            == p.grad.data_ptr() - flat.grad.data_ptr() - (p.data_ptr() - start)
        )
    used = sum(p.numel() for p in net.parameters())
    assert (flat.data != 0).sum() <= used < flat.data.numel()


@pytest.mark.usefixtures("torch_layers")
@pytest.mark.parametrize("kind", ["linear_plus_mlp", "own"])
def test_optimiser_on_the_buffers_equals_one_on_the_parameters(kind):
    net = make(torch.float32)[0] if kind == "linear_plus_mlp" else own_module()
    twin = copy.deepcopy(net)
    flat = FlatParameters(net)
    heavy = [p for p in twin.parameters() if p.dim() >= 2]
    light = [p for p in twin.parameters() if p.dim() < 2]
    steps = []
    for weights, others in ([flat.weights], [flat.others]), (heavy, light):
        groups = [
            {"params": weights, "weight_decay": 0.1},
            {"params": others, "weight_decay": 0.0},
        ]
        steps.append(torch.optim.AdamW(groups, lr=0.01, fused=True))
    x = normal(9, 5, dtype=torch.float32)
    for _ in range(5):
        flat.zero_grad()
        steps[1].zero_grad()
        for model in (net, twin):
            model(x).square().mean().backward()
        for step in steps:
            step.step()
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        assert_allclose(p.detach(), q.detach(), atol=2e-5)


def test_all_is_one_leaf_over_the_whole_buffer():
    net, flat = make()
    net(normal(9, 5)).sum().backward()
    before = flat.data.clone()
    torch.optim.SGD([flat.all], lr=0.1).step()
    assert_allclose(flat.data, before - 0.1 * flat.grad, atol=1e-12)
    assert torch.equal(flat.weights.data, flat.data[: flat.weights.numel()])


def test_load_state_dict_writes_into_the_buffer():
    net, flat = make()
    net.load_state_dict({k: torch.ones_like(v) for k, v in net.state_dict().items()})
    assert flat.data.sum() == sum(p.numel() for p in net.parameters())
    assert_same(both_ways(net, flat, normal(9, 5)), 1e-12)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))]
)
def test_copies_are_independent_and_unbound(copied):
    net, flat = make()
    x = normal(9, 5)
    expected = net(x).detach()
    twin = copied(net)
    assert twin.grad_buffers is None
    with torch.no_grad():
        flat.data.zero_()
    assert_allclose(twin(x).detach(), expected, atol=1e-14)
    twin(x).sum().backward()
    assert not flat.grad.any()
    net(x).sum().backward()
    assert flat.grad.any()


def test_release_gives_each_parameter_its_own_memory():
    net, flat = make()
    x = normal(9, 5)
    expected, size = net(x).detach(), len(pickle.dumps(net))
    flat.release()
    assert_allclose(net(x).detach(), expected, atol=1e-14)
    assert all(p.grad is None for p in net.parameters())
    assert len(pickle.dumps(net)) < size / 2
    with pytest.raises(RuntimeError, match="left the flat buffer"):
        flat.bind()


def test_snapshot_is_restored_in_place():
    net, flat = make()
    x = normal(9, 5)
    expected, kept = net(x).detach(), flat.snapshot()
    with torch.no_grad():
        flat.data.add_(1.0)
    assert not torch.allclose(net(x), expected)
    flat.restore(kept)
    assert torch.equal(net(x), expected)


def test_bind_restores_gradients_set_to_none():
    net, flat = make()
    net.zero_grad(set_to_none=True)
    flat.bind()
    net(normal(9, 5)).sum().backward()
    assert all(p.grad.any() for p in net.parameters())
    assert flat.grad.any()


def test_moving_the_module_turns_the_fused_pass_off():
    net, flat = make(torch.float32)
    net.double()
    assert net.grad_buffers is None
    with pytest.raises(RuntimeError, match="left the flat buffer"):
        flat.bind()
    again = FlatParameters(net)
    assert_same(both_ways(net, again, normal(9, 5)), 1e-12)


def test_frozen_parameters_stay_out_and_keep_autograd():
    net, _ = make()
    net.linear_weight.requires_grad_(False)
    flat = FlatParameters(net)
    assert net.grad_buffers is None
    net.linear_weight.grad = None
    net(normal(9, 5)).sum().backward()
    assert flat.grad.any()
    assert net.linear_weight.grad is None


@pytest.mark.usefixtures("torch_layers")
def test_shared_parameters_appear_once():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    flat = FlatParameters(nn.Sequential(first, second))
    assert flat.weights.numel() == 16
    assert second.weight.data_ptr() == flat.data.data_ptr()


@pytest.mark.usefixtures("torch_layers")
def test_module_without_weights_or_parameters_is_allowed():
    assert FlatParameters(nn.LayerNorm(3)).weights.numel() == 0
    assert FlatParameters(nn.Linear(3, 2, bias=False)).others.numel() == 0
    assert FlatParameters(nn.Identity()).data.numel() == 0


@pytest.mark.usefixtures("torch_layers")
def test_mixed_dtypes_are_rejected():
    mixed = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())
    with pytest.raises(ValueError, match="must have the same dtype"):
        FlatParameters(mixed)


# -- tied weights --------------------------------------------------------------------
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_tied_decoder_starts_at_the_transposed_linear_path(activation):
    encoder = LinearPlusMLP(6, 4, (8, 7), activation, n_linear=2, generator=seeded())
    decoder = TiedDecoder(encoder)
    z = normal(9, 2, dtype=torch.float32)
    assert_allclose(
        decoder(z).detach(), (z @ encoder.linear_weight).detach(), atol=1e-6
    )


@pytest.mark.parametrize("activation", ["silu", "relu", "logistic"])
def test_tied_autoencoder_leaves_its_start(activation):
    encoder = LinearPlusMLP(6, 2, (16,), activation, generator=seeded())
    model = nn.Sequential(encoder, TiedDecoder(encoder))
    names = [name for name, _ in model.named_parameters()]
    assert sum("weight" in name for name in names) == 3
    flat = FlatParameters(model)
    step = torch.optim.Adam([flat.all], lr=0.01)
    t = torch.linspace(-1, 1, 64)[:, None]
    x = torch.cat([torch.sin(3 * t * k) for k in range(1, 7)], dim=1)
    losses = []
    for _ in range(60):
        flat.zero_grad()
        loss = (model(x) - x).square().mean()
        loss.backward()
        step.step()
        losses.append(loss.item())
    assert encoder.weights[-1].any()
    assert losses[-1] < 0.9 * losses[0]


def test_tied_copies_share_among_themselves():
    encoder = LinearPlusMLP(6, 2, (8,))
    for twin in (
        copy.deepcopy(nn.Sequential(encoder, TiedDecoder(encoder))),
        pickle.loads(pickle.dumps(nn.Sequential(encoder, TiedDecoder(encoder)))),
    ):
        assert isinstance(twin[1], TiedDecoder)
        before = twin[1](torch.ones(1, 2))
        with torch.no_grad():
            twin[0].linear_weight.mul_(2)
        assert_allclose(twin[1](torch.ones(1, 2)).detach(), 2 * before.detach())


# -- own modules and images ------------------------------------------------------------
@pytest.mark.usefixtures("torch_layers")
def test_own_module_is_copied_and_keeps_weights_and_modes():
    own = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    own[1].eval()
    built = build_network(own, 5, 2)
    flat = FlatParameters(built)
    assert torch.equal(built[0].weight, own[0].weight)
    assert [m.training for m in built] == [True, False, True]
    with torch.no_grad():
        flat.data.zero_()
    assert own[0].weight.any()
    assert own[0].weight.grad is None


@pytest.mark.usefixtures("torch_layers")
def test_wrong_width_names_expected_and_got():
    with pytest.raises(ValueError, match=r"'encoder'.*\(2, 3\). Got \(2, 2\)"):
        build_network(nn.Linear(5, 2), 5, 3, name="encoder")
    with pytest.raises(ValueError, match="does not take rows of 6 numbers"):
        build_network(nn.Linear(5, 2), 6, 2)
    with pytest.raises(ValueError, match="Got tuple instead"):
        build_network(nn.LSTM(5, 2), 5, 2)


@pytest.mark.parametrize("spec", ["mlp", lambda n_in, n_out: "mlp"])
def test_spec_that_is_no_module_is_rejected(spec):
    with pytest.raises(TypeError, match="'decoder'"):
        build_network(spec, 5, 2, name="decoder")


@pytest.mark.parametrize(
    "spec", [nn.Linear, lambda i, o: nn.LazyLinear(o), ConvEncoder((1, 5), (3,))]
)
def test_factories_follow_the_generator_and_leave_global_state(spec):
    before = torch.get_rng_state()
    nets = [build_network(spec, 5, 2, generator=seeded(s)) for s in (0, 0, 1)]
    first, same, other = (nn.utils.parameters_to_vector(n.parameters()) for n in nets)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("image_shape", [(8, 8), (7, 5), (3, 6, 9), (1, 1)])
@pytest.mark.parametrize("channels", [(), (4,), (4, 3)])
def test_convolutions_map_rows_to_codes_and_back(image_shape, channels):
    n = torch.Size(image_shape).numel()
    encoder = build_network(ConvEncoder(image_shape, channels), n, 6)
    decoder = build_network(ConvDecoder(image_shape, channels), 3, n)
    assert encoder(torch.zeros(2, 9, n)).shape == (2, 9, 6)
    assert decoder(torch.zeros(2, 9, 3)).shape == (2, 9, n)


def test_convolutions_keep_the_size_of_activations():
    x = normal(200, 256, dtype=torch.float32)
    code = ConvEncoder((16, 16))(256, 8, generator=seeded())(x)
    image = ConvDecoder((16, 16))(8, 256, generator=seeded())(code)
    assert 0.1 < code.std() < 3
    assert 0.05 < image.std() < 3


def test_image_shape_that_does_not_fit_names_the_columns():
    with pytest.raises(ValueError, match="rows of 64 columns, but X has 63"):
        ConvEncoder((8, 8))(63, 2)
    with pytest.raises(ValueError, match="rows of 64 columns, but X has 63"):
        ConvDecoder((8, 8))(2, 63)
    with pytest.raises(ValueError, match="image_shape must be"):
        ConvEncoder((64,))(64, 2)


def test_convolution_factories_clone_pickle_and_compare():
    spec = ConvEncoder((8, 8), (4,))
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert clone(spec, safe=False) == spec
    assert spec != ConvEncoder((8, 8), (5,))
    assert (
        repr(spec)
        == "ConvEncoder(image_shape=(8, 8), channels=(4,), activation='silu')"
    )
