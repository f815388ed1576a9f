"""DenoisingAutoencoder: what is corrupted, when, and what training makes of it."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from skvae import DenoisingAutoencoder
from skvae._rows import NumericColumns, RowDataset, column_ranges
from skvae.corruptions import make_corruption


class Negative:
    """A corruption of one's own; its name is the same in every process."""

    def __call__(self, x, generator):
        return -x

    def __repr__(self):
        return "Negative()"


VARIANTS = [
    DenoisingAutoencoder(max_iter=5, corruption="gaussian", tied_weights=True),
    DenoisingAutoencoder(max_iter=5, code_activation="relu", hidden_layer_sizes=()),
    DenoisingAutoencoder(
        max_iter=5, code_activation="logistic", n_components=12, scale=None
    ),
    DenoisingAutoencoder(max_iter=5, corruption=Negative()),
    DenoisingAutoencoder(max_iter=5, corruption="swap", missing_values="error"),
    DenoisingAutoencoder(
        max_iter=5, corruption="salt_and_pepper", early_stopping=False
    ),
]


@pytest.mark.numpy_global_rng
@parametrize_with_checks(VARIANTS)
def test_scikit_learn_check(estimator, check):
    check(estimator)


def _model(**params):
    settings = {"n_components": 2, "max_iter": 3, "random_state": 0}
    return DenoisingAutoencoder(**{**settings, **params})


class Recorder:
    """A corruption that keeps what it was given and what it gave."""

    def __init__(self):
        self.seen = []

    def __call__(self, x, generator):
        noise = torch.empty_like(x).normal_(generator=generator)
        self.seen.append((x.clone(), noise))
        return x + noise

    def __deepcopy__(self, memo):
        return self


def test_callable_gets_scaled_training_rows_and_a_generator(wine):
    recorder = Recorder()
    model = _model(corruption=recorder, max_iter=1, early_stopping=False).fit(wine)
    rows = np.sort(np.concatenate([x for x, _ in recorder.seen]), axis=0)
    scaled = np.sort((wine - model.center_) / model.scale_, axis=0)
    np.testing.assert_allclose(rows, scaled, atol=1e-12)


def test_callable_of_a_table_gives_codes_of_its_columns():
    rows = np.random.default_rng(0).normal(size=(60, 1))
    table = pd.DataFrame(rows, columns=["x"]).assign(c=["u", "v"] * 30)
    with pytest.raises(ValueError, match=r"codes from -1 .* of a table. Got"):
        _model(corruption=lambda x, generator: x + 1, max_iter=1).fit(table)
    hides = _model(corruption=lambda x, generator: torch.full_like(x, -1), max_iter=1)
    assert np.isfinite(hides.fit(table).transform(table)).all()


def test_noise_is_fresh_in_every_epoch(wine):
    recorder = Recorder()
    _model(corruption=recorder, max_iter=2, early_stopping=False).fit(wine)
    half = len(recorder.seen) // 2
    assert not torch.equal(recorder.seen[0][1], recorder.seen[half][1])


def test_held_out_rows_get_the_same_noise_in_every_epoch(wine):
    recorder = Recorder()
    model = _model(corruption=recorder, batch_size=160, max_iter=30).fit(wine)
    held_out = [noise for x, noise in recorder.seen if len(x) == 18]
    assert len(held_out) > 1
    assert all(torch.equal(noise, held_out[0]) for noise in held_out)
    assert model.best_loss_ == min(model.best_loss_, *model.validation_loss_curve_)


def test_target_of_the_loss_is_the_clean_row(wine):
    def wipe(x, generator):
        return torch.zeros_like(x)

    model = _model(corruption=wipe, max_iter=1, learning_rate_init=1e-12).fit(wine)
    # From a row of zeros the start decodes the mean, which is zero: the loss of
    # standardised rows is half their squared norm, and the constant.
    x = (wine - model.center_) / model.scale_
    constant = 0.5 * x.shape[1] * np.log(2 * np.pi)
    expected = 0.5 * np.square(x).sum(axis=1).mean() + constant
    assert model.loss_curve_[0] == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    "method", ["transform", "reconstruct", "score_samples", "jacobian_norm"]
)
def test_fitted_model_corrupts_nothing(method, wine):
    recorder = Recorder()
    model = _model(corruption=recorder).fit(wine)
    recorder.seen.clear()
    state = model.net_.module_.noise.get_state()
    first = getattr(model, method)(wine)
    np.testing.assert_array_equal(getattr(model, method)(wine), first)
    assert not recorder.seen
    assert torch.equal(model.net_.module_.noise.get_state(), state)


def test_overcomplete_model_leaves_the_identity_it_starts_at(digits):
    X = digits[:600]
    settings = {"n_components": 80, "hidden_layer_sizes": (), "max_iter": 20}
    model = _model(**settings, corruption="masking", corruption_level=0.5).fit(X)
    hidden = np.random.default_rng(0).random(X.shape) < 0.5
    broken = np.where(hidden, 0.0, X)
    restored = np.square(model.reconstruct(broken) - X).mean()
    assert restored < 0.7 * np.square(broken - X).mean()
    assert model.net_.best_epoch_ > 0


@pytest.mark.parametrize(
    ("corruption", "level"),
    [("gaussian", 0.5), ("masking", 0.3), ("salt_and_pepper", 0.3), ("swap", 0.3)],
)
def test_each_corruption_is_undone_better_after_seeing_it(corruption, level, digits):
    X, new = digits[:900], digits[900:1200]

    def error(seen):
        model = _model(
            n_components=16, corruption=corruption, corruption_level=seen, max_iter=15
        ).fit(X)
        corrupt = make_corruption(corruption, level, low=0.0, high=1.0)
        x = torch.as_tensor(new / 16)
        broken = corrupt(x, torch.Generator().manual_seed(0)).numpy() * 16
        return np.square(model.reconstruct(broken) - new).mean()

    assert error(level) < 0.95 * error(0.0)


def test_level_of_zero_is_the_model_without_corruption(wine):
    models = [
        _model(corruption=name, corruption_level=0.0).fit(wine).transform(wine)
        for name in ("masking", "gaussian")
    ]
    np.testing.assert_array_equal(*models)


def test_salt_and_pepper_of_pixels_goes_to_the_ends_of_their_common_range():
    # Columns that reach 4 to 8: their common range is 0 to 8, 0 to 1 once scaled.
    X = np.random.default_rng(0).integers(2, [5, 6, 7, 9], (200, 4)).astype(float)
    model = DenoisingAutoencoder(2, corruption="salt_and_pepper", max_iter=1)
    noise = model.set_params(random_state=0).fit(X)._module.corruption
    np.testing.assert_array_equal(model.scale_, 8)
    assert (noise.low, noise.high) == (0.0, 1.0)


def test_salt_and_pepper_of_standardised_columns_stays_in_their_range(wine):
    columns = NumericColumns.fit(wine, "auto")
    dataset = RowDataset(columns, {"x": wine}, torch.float64, "cpu")
    low, high = column_ranges(dataset, np.arange(100))
    scaled = (wine[:100] - columns.center) / columns.scale
    np.testing.assert_allclose(low, scaled.min(axis=0))
    np.testing.assert_allclose(high, scaled.max(axis=0))
    model = _model(corruption="salt_and_pepper").fit(wine)
    corruption = model.net_.module_.corruption
    assert corruption.low.shape == corruption.high.shape == (13,)


def test_corrupted_cells_still_count_as_observed(wine):
    X = wine.copy()
    X[::2, 3] = np.nan
    recorder = Recorder()
    model = _model(corruption=recorder).fit(X)
    module = model.net_.module_.train()
    x, mask = torch.zeros(4, 13).double(), torch.ones(4, 13).double()
    inputs = module._corrupted_input(x, mask, None)
    assert torch.equal(inputs[:, 13:], mask)
    assert not torch.equal(inputs[:, :13], x)
    module.eval()


@pytest.mark.parametrize("corruption", ["masking", "swap"])
def test_categories_are_corrupted_too(corruption):
    rng = np.random.default_rng(0)
    kind = rng.choice(["a", "b", "c"], size=300)
    frame = pd.DataFrame({"kind": kind, "same": kind, "x": rng.normal(size=300)})
    model = _model(corruption=corruption, corruption_level=0.5).fit(frame)
    assert model.transform(frame).shape == (300, 2)
    assert list(model.reconstruct(frame).columns) == ["kind", "same", "x"]


def test_clone_keeps_a_callable(wine):
    recorder = Recorder()
    assert clone(_model(corruption=recorder)).corruption is recorder


def test_unknown_corruption_is_refused(wine):
    with pytest.raises(ValueError, match="The 'corruption' parameter of Denoising"):
        _model(corruption="dust").fit(wine)


def test_probability_above_one_is_refused(wine):
    with pytest.raises(ValueError, match=r"corruption_level must be in \[0, 1\].* 2.0"):
        _model(corruption="masking", corruption_level=2.0).fit(wine)
