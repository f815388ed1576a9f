"""Convolutional networks in the estimators, on 8 x 8 digits."""

import copy
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from torch import nn

from skvae import (
    VAE,
    AutoencoderTransformer,
    ContractiveAutoencoder,
    ConvDecoder,
    ConvEncoder,
    DenoisingAutoencoder,
)

IMAGE = (8, 8)


def _conv(kind, **params):
    settings = {
        "n_components": 4,
        "encoder": ConvEncoder(IMAGE, channels=(4, 8)),
        "decoder": ConvDecoder(IMAGE, channels=(8, 4)),
        "max_iter": 3,
        "random_state": 0,
    }
    return kind(**{**settings, **params})


MODELS = [
    _conv(AutoencoderTransformer),
    _conv(AutoencoderTransformer, penalty="kl"),
    _conv(DenoisingAutoencoder),
    _conv(ContractiveAutoencoder, jacobian="hutchinson"),
    _conv(ContractiveAutoencoder),
    _conv(VAE),
    _conv(VAE, noise="heteroscedastic"),
]


@pytest.fixture(scope="module")
def X(digits):
    return digits[:300]


@pytest.mark.filterwarnings("ignore:Posterior collapse")
@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
def test_model_survives_its_pickle_and_a_second_fit(model, X):
    fitted = clone(model).fit(X)
    codes = fitted.transform(X)
    assert codes.shape == (300, 4)
    assert fitted.inverse_transform(codes).shape == X.shape
    assert fitted.sample(5, random_state=0).shape == (5, 64)
    loaded = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(loaded.transform(X), codes)
    assert loaded.score(X) == fitted.score(X)
    assert any(isinstance(m, nn.Conv2d) for m in loaded.net_.module_.modules())
    np.testing.assert_array_equal(clone(model).fit(X).transform(X), codes)
    np.testing.assert_array_equal(copy.deepcopy(fitted).transform(X), codes)


@pytest.mark.filterwarnings("ignore:Posterior collapse")
@pytest.mark.parametrize("kind", [AutoencoderTransformer, VAE])
def test_training_helps(kind, X):
    scores = [_conv(kind, max_iter=n).fit(X).score(X) for n in (1, 40)]
    assert scores[1] > scores[0] + 0.05


def test_grid_search_over_networks(X):
    grid = {"encoder": [ConvEncoder(IMAGE, channels=c) for c in ((2,), (4, 8))]}
    search = GridSearchCV(_conv(AutoencoderTransformer), grid, cv=2).fit(X)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_params_["encoder"] in grid["encoder"]


def test_network_works_in_a_pipeline(X):
    scale = FunctionTransformer(np.log1p)
    pipe = make_pipeline(scale, _conv(AutoencoderTransformer)).fit(X)
    assert pipe.transform(X).shape == (300, 4)


def test_encoder_alone_keeps_the_usual_decoder(X):
    model = _conv(AutoencoderTransformer, decoder=None).fit(X)
    assert np.isfinite(model.score(X))


def test_jacobian_norm_of_a_convolution_matches_differences(X):
    model = _conv(AutoencoderTransformer).fit(X)
    row, step = X[:1] / 16, 1e-5
    moved = row + step * np.vstack([np.eye(64), -np.eye(64)])
    codes = model.transform(16 * moved)
    slopes = (codes[:64] - codes[64:]) / (2 * step)
    expected = np.sqrt(np.square(slopes).sum())
    np.testing.assert_allclose(model.jacobian_norm(X[:1]), expected, rtol=1e-6)


def test_contraction_lowers_the_norm_of_a_convolution(X):
    free, held = (
        _conv(ContractiveAutoencoder, alpha=alpha, max_iter=15).fit(X)
        for alpha in (0.0, 1.0)
    )
    assert held.jacobian_norm(X).mean() < 0.8 * free.jacobian_norm(X).mean()


def test_wrong_image_shape_is_refused(X):
    model = _conv(AutoencoderTransformer, encoder=ConvEncoder((8, 9)))
    with pytest.raises(ValueError, match="rows of 72 columns, but X has 64"):
        model.fit(X)


def _narrow(n_in, n_out):
    return nn.Linear(64, n_out)


def test_an_own_encoder_is_told_of_the_mask_of_missing_cells(X):
    gaps = np.where(X > 0.9, np.nan, X)
    message = r"(?s)but X has 128.*the encoder gets 128 numbers: 64 columns, and which"
    with pytest.raises(ValueError, match=message):
        _conv(AutoencoderTransformer).fit(gaps)
    with pytest.raises(ValueError, match=r"(?s)rows of 128 numbers.*64 columns, and"):
        _conv(AutoencoderTransformer, encoder=_narrow).fit(gaps)


def test_factories_print_and_compare_by_their_parameters():
    assert repr(ConvEncoder(IMAGE)).startswith("ConvEncoder(image_shape=(8, 8)")
    assert ConvDecoder(IMAGE) == ConvDecoder(IMAGE)
    assert clone(ConvEncoder(IMAGE), safe=False) == ConvEncoder(IMAGE)
