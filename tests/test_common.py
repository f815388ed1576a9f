"""scikit-learn's own checks, on every estimator in many of its settings.

Two likelihoods do not take any real number, and scikit-learn's checks feed data as
they like. Counts are asked for by a tag (``positive_only``), which the checks obey.
For data in [0, 1] there is no tag, so `_InUnitInterval` lifts the data of every
method into the support first, elementwise and with zeros kept; all else is the
estimator's own.
"""

import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.base import clone
from sklearn.utils.estimator_checks import (
    check_dataframe_column_names_consistency,
    check_estimators_partial_fit_n_features,
    check_get_feature_names_out_error,
    check_global_output_transform_pandas,
    check_global_set_output_transform_polars,
    check_inplace_ensure_writeable,
    check_param_validation,
    check_set_output_transform,
    check_set_output_transform_pandas,
    check_set_output_transform_polars,
    check_transformer_get_feature_names_out,
    check_transformer_get_feature_names_out_pandas,
    parametrize_with_checks,
)

from skvae import VAE, AutoencoderTransformer


class _InUnitInterval(VAE):
    """A VAE behind x^2 / (1 + x^2), which maps any number into [0, 1)."""

    def _validate(self, X, *, reset):
        X = super()._validate(X, reset=reset)
        if not sp.issparse(X):
            return self._lifted(X)
        X = X.copy()
        X.data = self._lifted(X.data)
        return X

    @staticmethod
    def _lifted(x):
        square = np.square(x.astype(np.float64))
        return (square / (1 + square)).astype(x.dtype)


def _ae(**params):
    return AutoencoderTransformer(**{"max_iter": 5, **params})


def _vae(kind=VAE, **params):
    return kind(**{"max_iter": 5, **params})


# The other estimators have such lists in files of their own. max_iter=0 is not here:
# scikit-learn asks for at least one iteration; the classical models have own tests.
VARIANTS = [
    _ae(),
    _ae(penalty="kl", alpha=0.1),
    _ae(penalty="l1", tied_weights=True),
    _ae(penalty="l2", hidden_layer_sizes=()),
    _ae(dropout=0.2, hidden_layer_sizes=(8,), weight_decay=0.01),
    _ae(init="random", scale=None),
    _ae(missing_values="error", n_components=12, early_stopping=False),
    _vae(),
    _vae(noise="shared", hidden_layer_sizes=()),
    _vae(noise="heteroscedastic", free_bits=0.1),
    _vae(noise=0.5, n_importance_samples=3, missing_values="error"),
    _vae(init="random", kl_warmup=0.5, beta=4.0),
    _vae(scale=None, dropout=0.2, n_components=12),
    _vae(prior="mixture", beta=0.5),
    _vae(prior="vamp"),
    _vae(likelihood="poisson"),
    _vae(_InUnitInterval, likelihood="bernoulli"),
    _vae(_InUnitInterval, likelihood="continuous_bernoulli"),
]
# One of each kind, for checks that look at the interface and not at the model.
INTERFACES = [_ae(), _ae(penalty="l1", init="random"), _vae(), _vae(noise="shared")]
OUTSIDE_CHECK_ESTIMATOR = [
    check_dataframe_column_names_consistency,
    check_estimators_partial_fit_n_features,
    check_get_feature_names_out_error,
    check_global_output_transform_pandas,
    check_global_set_output_transform_polars,
    check_inplace_ensure_writeable,
    check_set_output_transform,
    check_set_output_transform_pandas,
    check_set_output_transform_polars,
    check_transformer_get_feature_names_out,
    check_transformer_get_feature_names_out_pandas,
]


def _label(estimator):
    changed = {
        name: value
        for name, value in estimator.get_params().items()
        if repr(value) != repr(type(estimator)().get_params()[name])
    }
    inner = ",".join(f"{k}={v}" for k, v in changed.items() if k != "max_iter")
    return f"{type(estimator).__name__}({inner})"


# The checks themselves draw from NumPy's global generator. Posterior collapse of a
# model trained for five epochs on noise is a warning they are not about.
@pytest.mark.numpy_global_rng
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(VARIANTS)
def test_scikit_learn_check(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings("ignore:X (has|does not have valid) feature names")
@pytest.mark.numpy_global_rng
@pytest.mark.parametrize("check", OUTSIDE_CHECK_ESTIMATOR, ids=lambda c: c.__name__)
@pytest.mark.parametrize("estimator", INTERFACES, ids=_label)
def test_check_that_scikit_learn_runs_on_its_own_estimators(estimator, check):
    check(type(estimator).__name__, clone(estimator).set_params(random_state=0))


@pytest.mark.numpy_global_rng
@pytest.mark.parametrize("estimator", [_ae(), _vae()], ids=_label)
def test_every_parameter_is_validated(estimator):
    check_param_validation(type(estimator).__name__, clone(estimator))


ARRAY_API = """
import warnings
import torch
torch.set_num_threads(1)
warnings.simplefilter("ignore")
from sklearn.utils.estimator_checks import check_array_api_input
from sklearn.utils.estimator_checks import estimator_checks_generator
from skvae import VAE, AutoencoderTransformer
ran = 0
for model in [
    AutoencoderTransformer(max_iter=2),
    AutoencoderTransformer(max_iter=2, penalty="kl"),
    VAE(max_iter=2),
    VAE(max_iter=2, noise="heteroscedastic"),
]:
    for estimator, check in estimator_checks_generator(model):
        if check.func is check_array_api_input:
            check(estimator)
            ran += 1
print(ran)
"""


@pytest.mark.slow
def test_array_api_check_passes_where_scikit_learn_turns_it_on():
    environment = {**os.environ, "SCIPY_ARRAY_API": "1"}
    done = subprocess.run(
        [sys.executable, "-c", ARRAY_API],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 4


def test_poisson_asks_for_counts_by_its_tag():
    assert VAE(likelihood="poisson").__sklearn_tags__().input_tags.positive_only
    assert not VAE().__sklearn_tags__().input_tags.positive_only


@pytest.mark.parametrize("missing_values", ["mask", "error"])
def test_tag_says_whether_missing_cells_are_taken(missing_values):
    tags = VAE(missing_values=missing_values).__sklearn_tags__()
    assert tags.input_tags.allow_nan == (missing_values == "mask")
    assert tags.input_tags.sparse


@pytest.mark.parametrize("likelihood", ["table", {0: "gaussian"}, "gaussian"])
def test_tag_says_whether_sparse_rows_are_taken(likelihood):
    model = VAE(1, likelihood=likelihood, max_iter=0, random_state=0)
    if model.__sklearn_tags__().input_tags.sparse:
        assert model.fit(sp.eye_array(9, format="csr")).likelihood_ == "gaussian"
        return
    with pytest.raises(TypeError, match="Sparse data was passed"):
        model.fit(sp.eye_array(9, format="csr"))
