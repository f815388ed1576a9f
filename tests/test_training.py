"""Training: the plan, the epochs, the best weights, going on, own networks."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from skvae import VAE, AutoencoderTransformer, ConditionalVAE, DenoisingAutoencoder
from skvae._optimizer import FlatAdamW
from skvae._plan import TrainingPlan

Y = np.arange(150) % 2
# One without a prior and one with it, where a test takes long.
PAIR = pytest.mark.parametrize("kind", [AutoencoderTransformer, VAE])


@pytest.fixture(scope="module")
def X():
    rng = np.random.default_rng(0)
    t = rng.uniform(-2, 2, size=(150, 1))
    return np.hstack([t, t**2, np.sin(2 * t)]) + 0.1 * rng.normal(size=(150, 3))


def _model(kind, **params):
    return kind(**{"n_components": 1, "max_iter": 5, "random_state": 0, **params})


# -- the plan ------------------------------------------------------------------------
def test_step_size_rises_then_falls_to_zero_along_a_cosine():
    plan = TrainingPlan(10, 8, learning_rate=2.0, warmup=0.1)
    assert plan.rate(0.05) == pytest.approx(1.0)
    assert plan.rate(0.1) == pytest.approx(2.0)
    assert plan.rate(0.55) == pytest.approx(1.0)
    assert plan.rate(1.0) == pytest.approx(0.0)
    assert 0 < plan.rate(0.0) < 0.1
    assert TrainingPlan(1, 8, 2.0, schedule="constant").rate(0.7) == 2.0


class _StopAtOnce:
    def setup(self, estimator, context): ...
    def teardown(self, estimator, context): ...
    def on_fit_task_begin(self, estimator, context, **kwargs): ...
    def on_fit_task_end(self, estimator, context, **kwargs):
        return True


@pytest.mark.parametrize(
    ("n", "max_iter", "batch_size"),
    [(20, 500, 20), (60, 3000, 50), (150, 1500, 128), (1000, 375, 128)],
)
def test_auto_epochs_are_a_budget_of_optimiser_steps(n, max_iter, batch_size):
    rows = np.random.default_rng(0).normal(size=(n, 2))
    model = AutoencoderTransformer(1, random_state=0)
    model.set_callbacks(_StopAtOnce()).fit(rows)
    assert (model.max_iter_, model.batch_size_) == (max_iter, batch_size)
    assert model.n_iter_ == 1


@PAIR
@pytest.mark.parametrize(
    ("n", "max_iter"), [(20, 1000), (60, 1000), (200, 1000), (1000, 250), (20_000, 63)]
)
def test_a_small_table_is_not_seen_more_than_a_thousand_times(kind, n, max_iter):
    if kind is VAE and 100 < n < 3000:
        max_iter = math.ceil(max_iter * 5 / 8)
    codes = np.random.default_rng(0).integers(0, 3, size=(n, 2))
    model = kind(random_state=0).set_callbacks(_StopAtOnce())
    frame = pd.DataFrame(codes, columns=["a", "b"]).astype("category")
    model.fit(frame)
    assert model.max_iter_ == max_iter


@pytest.mark.parametrize(
    ("n", "steps"),
    [(500, 1250), (1800, 1250), (2400, 1440), (3334, 2000), (9000, 2000)],
)
def test_a_generator_of_few_rows_takes_fewer_steps(n, steps):
    codes = np.random.default_rng(0).integers(0, 3, size=(n, 2))
    frame = pd.DataFrame(codes, columns=["a", "b"]).astype("category")
    model = VAE(random_state=0).set_callbacks(_StopAtOnce()).fit(frame)
    epoch = math.ceil(0.9 * n / 128)
    assert steps <= model.max_iter_ * epoch < steps + epoch


@PAIR
@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_any_batch_size_trains(kind, X, batch_size):
    model = _model(kind, batch_size=batch_size, max_iter=2).fit(X, Y)
    assert model.batch_size_ == min(batch_size, 135)
    assert np.all(np.isfinite(model.transform(X)))


# -- what is recorded ----------------------------------------------------------------
def test_history_has_a_column_for_each_term(X):
    sparse = _model(AutoencoderTransformer, penalty="l1").fit(X)
    row = sparse.net_.history[-1]
    assert {"train_loss", "valid_loss", "train_nll", "train_sparsity", "dur"} <= set(
        row
    )
    vae = _model(VAE).fit(X)
    assert {"train_nll", "train_kl", "valid_kl"} <= set(vae.net_.history[-1])


def test_recorded_terms_add_up_to_the_loss(X):
    vae = _model(VAE, beta=3.0, early_stopping=False).fit(X)
    for row in vae.net_.history:
        expected = row["train_nll"] + 3 * row["train_kl"]
        assert row["train_loss"] == pytest.approx(expected, rel=1e-5)


def test_curves_follow_the_history(kind, X):
    model = _model(kind).fit(X, Y)
    assert model.n_iter_ == len(model.loss_curve_) == 5
    assert model.loss_curve_ == model.net_.history[:, "train_loss"]
    assert len(model.validation_loss_curve_) == 5
    assert model.best_loss_ <= min(model.validation_loss_curve_)


def test_without_held_out_rows_there_is_no_validation(kind, X):
    for model in (
        _model(kind, early_stopping=False).fit(X, Y),
        _model(kind).fit(X[:49], Y[:49]),
    ):
        assert model.validation_loss_curve_ is None
        assert model.best_loss_ is None


def test_training_lowers_the_loss(kind, X):
    curve = _model(kind, max_iter=60).fit(X, Y).loss_curve_
    assert np.mean(curve[-5:]) < np.mean(curve[:5])


# -- best weights and stopping -------------------------------------------------------
def test_the_weights_kept_are_those_with_the_best_held_out_loss(kind, X):
    model = _model(kind, max_iter=80, learning_rate_init=0.03).fit(X, Y)
    best = model.net_.best_epoch_
    assert best > 0
    assert model.validation_loss_curve_[best - 1] == model.best_loss_
    assert min(model.validation_loss_curve_) == model.best_loss_


def test_patience_ends_training(kind):
    noise = np.random.default_rng(0).normal(size=(100, 4))
    model = _model(kind, max_iter=500, n_iter_no_change=8).fit(noise, Y[:100])
    assert model.n_iter_ < 200


def test_held_out_rows_are_not_trained_on(kind, X):
    # Poisoned held-out rows change which weights are kept, not the training itself.
    model = _model(kind, max_iter=3).fit(X, Y)
    curve = model.loss_curve_
    order = np.random.RandomState(_split_seed(0)).permutation(len(X))
    other = X.copy()
    other[order[:15]] = other[order[:15]][::-1]
    again = _model(kind, max_iter=3).fit(other, Y)
    np.testing.assert_allclose(again.loss_curve_, curve)


def _split_seed(seed):
    from skvae._random import draw_seeds

    return draw_seeds(seed).split


def test_weight_decay_shrinks_matrices_and_not_biases():
    rows = np.random.default_rng(0).normal(size=(100, 3)) + 5
    params = {"scale": None, "early_stopping": False, "max_iter": 40}
    free = _model(AutoencoderTransformer, **params).fit(rows)
    decayed = _model(AutoencoderTransformer, weight_decay=50.0, **params).fit(rows)
    size = [
        float(m.net_.module_.decoder.linear_weight.detach().norm())
        for m in (free, decayed)
    ]
    assert size[1] < 0.7 * size[0]
    # The means live in biases: they survive.
    np.testing.assert_allclose(decayed.reconstruct(rows).mean(axis=0), 5, atol=1.5)


# -- going on ------------------------------------------------------------------------
def test_partial_fit_adds_an_epoch_each_time(kind, X):
    model = _model(kind)
    losses = [model.partial_fit(X, Y).loss_curve_[-1] for _ in range(30)]
    assert model.n_iter_ == len(model.net_.history) == 30
    assert np.mean(losses[-3:]) < np.mean(losses[:3])


def test_partial_fit_goes_on_after_fit(kind, X):
    model = _model(kind, max_iter=3).fit(X, Y)
    model.partial_fit(X[:40], Y[:40])
    assert model.n_iter_ == 4
    assert np.all(np.isfinite(model.transform(X)))


def test_partial_fit_draws_fresh_noise_in_every_epoch(X):
    one = _model(VAE).partial_fit(X)
    before = one.net_.module_.noise.get_state()
    one.partial_fit(X)
    assert not torch.equal(one.net_.module_.noise.get_state(), before)


def test_partial_fit_takes_other_numbers_of_rows(kind, X):
    model = _model(kind)
    for n in (80, 1, 30):
        model.partial_fit(X[:n], Y[:n])
    assert model.n_iter_ == 3


def test_warm_start_adds_epochs_to_the_history(kind, X):
    model = _model(kind, max_iter=3, warm_start=True).fit(X, Y).fit(X, Y)
    assert model.n_iter_ == 6
    assert len(model.loss_curve_) == 6


@PAIR
def test_warm_start_is_never_worse_than_where_it_began_on_held_out_rows(kind, X):
    model = _model(kind, max_iter=100, warm_start=True).fit(X, Y)
    first = model.best_loss_
    assert model.fit(X, Y).best_loss_ <= first + 1e-9


def test_a_cold_fit_forgets_the_history(kind, X):
    assert _model(kind, max_iter=3).fit(X, Y).fit(X, Y).n_iter_ == 3


# -- the net -------------------------------------------------------------------------
def test_the_optimiser_equals_that_of_torch():
    generator = torch.Generator().manual_seed(0)
    start = torch.empty(7, dtype=torch.float64).normal_(generator=generator)
    ours, theirs = (nn.Parameter(start.clone()) for _ in range(2))
    fast = FlatAdamW([ours], lr=0.1, weight_decay=0.3)
    plain = torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.3)
    for _ in range(5):
        gradient = torch.empty_like(start).normal_(generator=generator)
        ours.grad, theirs.grad = 4 * gradient, gradient.clone()
        fast.quick_step(torch.tensor(4.0))
        plain.step()
    torch.testing.assert_close(ours, theirs)


def test_moments_of_another_length_are_refused():
    weights = nn.Parameter(torch.ones(7))
    weights.grad = torch.ones(7)
    optimizer = FlatAdamW([weights])
    optimizer.quick_step()
    optimizer.state[weights]["exp_avg"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"moments of a parameter of shape \(7,\)"):
        optimizer.quick_step()


def test_net_params_reach_skorch(kind, X):
    params = {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9}
    model = _model(kind, net_params=params, learning_rate_init=1e-3).fit(X, Y)
    assert type(model.net_.optimizer_) is torch.optim.SGD
    assert np.all(np.isfinite(model.transform(X)))
    assert model.get_params()["net_params"] is params


@pytest.mark.parametrize(
    "name",
    ["train_split", "warm_start", "dataset", "dataset__length", "module__dropout"],
)
def test_net_params_that_would_have_no_effect_are_refused(kind, X, name):
    with pytest.raises(ValueError, match=f"may not hold '{name}': .* says that"):
        _model(kind, net_params={name: None}).fit(X, Y)


def test_groups_of_parameters_are_refused(X):
    params = {"optimizer__param_groups": [("encoder*", {"lr": 0.0})]}
    with pytest.raises(ValueError, match=r"'optimizer__param_groups': .* Freezer"):
        _model(AutoencoderTransformer, net_params=params).fit(X)


@pytest.mark.parametrize("name", ["iterator_train", "iterator_valid"])
def test_settings_of_an_iterator_need_one_that_takes_them(X, name):
    params = {f"{name}__batch_size": 7}
    with pytest.raises(ValueError, match=f"'{name}__batch_size' without '{name}'"):
        _model(AutoencoderTransformer, net_params=params).fit(X)


@pytest.mark.parametrize("name", ["iterator_train", "iterator_valid"])
def test_either_iterator_may_be_a_data_loader(X, name):
    # Without a generator of its own a loader draws from torch's.
    generator = torch.Generator().manual_seed(0)
    params = {name: torch.utils.data.DataLoader, f"{name}__generator": generator}
    model = _model(AutoencoderTransformer, net_params=params).fit(X)
    assert np.isfinite(model.validation_loss_curve_).all()
    assert np.isfinite(model.transform(X)).all()


@pytest.mark.parametrize("method", ["predict", "forward"])
def test_the_net_says_that_it_takes_no_rows_of_its_own(X, method):
    net = _model(AutoencoderTransformer).fit(X).net_
    with pytest.raises(TypeError, match=r"Use transform, reconstruct, .* estimator"):
        getattr(net, method)(X)


class _InfiniteOnce:
    """A corruption that makes the loss of one batch infinite."""

    def __init__(self):
        self.calls = 0

    def __call__(self, x, generator):
        self.calls += 1
        return x * torch.finfo(x.dtype).max ** 0.75 if self.calls == 3 else x


def test_after_a_roll_back_there_is_still_no_held_out_loss(X):
    model = _model(
        DenoisingAutoencoder, corruption=_InfiniteOnce(), early_stopping=False
    )
    with pytest.warns(ConvergenceWarning, match="went back to the best weights"):
        model.fit(X)
    assert model.validation_loss_curve_ is None
    assert model.best_loss_ is None


@pytest.mark.parametrize("own", [{}, {"optimizer__weight_decay": 0.0}])
def test_own_optimisers_take_the_weight_decay_but_for_their_own(X, own):
    params = {"optimizer": torch.optim.AdamW, **own}
    model = _model(AutoencoderTransformer, weight_decay=0.5, net_params=params).fit(X)
    (group,) = model.net_.optimizer_.param_groups
    assert group["weight_decay"] == own.get("optimizer__weight_decay", 0.5)
    (group,) = model.set_params(weight_decay=0.0).fit(X).net_.optimizer_.param_groups
    assert group["weight_decay"] == own.get("optimizer__weight_decay", 0.01)


def test_weight_decay_beside_an_optimiser_without_one_is_refused(X):
    params = {"optimizer": torch.optim.LBFGS}
    model = _model(AutoencoderTransformer, weight_decay=0.5, net_params=params)
    with pytest.raises(ValueError, match=r"weight_decay=0\.5 needs .*LBFGS"):
        model.fit(X)


def test_the_gradient_is_clipped_by_the_plan(X):
    model = _model(AutoencoderTransformer).fit(X)
    net = model.net_
    assert net.plan.clip == pytest.approx(math.sqrt(3))
    net.flat_.grad.fill_(10.0)
    norm = float(torch.linalg.vector_norm(net.flat_.grad))
    assert float(net._clip_scale()) == pytest.approx(norm / math.sqrt(3), rel=1e-5)
    net.flat_.grad.fill_(1e-9)
    assert float(net._clip_scale()) == 1.0


def test_inference_leaves_no_graph(kind, X):
    model = _model(kind).fit(X, Y)
    model.transform(X)
    assert not model.net_.module_.training
    assert torch.is_grad_enabled()
    assert all(
        p.grad is None or not p.grad.requires_grad
        for p in model.net_.module_.parameters()
    )


# -- own networks --------------------------------------------------------------------
class Own(nn.Module):
    """A user's network with a nonlinearity of its own."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.layer = nn.Linear(n_in, n_out, dtype=torch.float64)

    def forward(self, x):
        return torch.tanh(self.layer(x)) * 3


@pytest.mark.usefixtures("torch_layers")
def test_own_factories_are_used(kind, X):
    model = _model(kind, encoder=Own, decoder=Own, max_iter=20).fit(X, Y)
    assert isinstance(model.net_.module_.encoder, Own)
    assert isinstance(model.net_.module_.decoder, Own)
    assert model.reconstruct(X).shape == X.shape
    drawn = model.sample(3, random_state=0)
    rows = drawn[0] if kind is ConditionalVAE else drawn
    assert rows.shape == (3, 3)


@pytest.mark.usefixtures("torch_layers")
def test_own_modules_are_copied_and_never_trained_in_place(kind, X):
    encoder = Own(3, 2 if issubclass(kind, VAE) else 1)
    before = encoder.layer.weight.detach().clone()
    model = _model(kind, encoder=encoder, max_iter=20).fit(X, Y)
    assert torch.equal(encoder.layer.weight, before)
    assert not torch.equal(model.net_.module_.encoder.layer.weight, before)
    assert model.encoder is encoder
