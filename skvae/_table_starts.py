"""Where the training of a table begins: a mixture, and regressions between columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from skvae._autoregressive import AutoregressiveLikelihood
from skvae._starts import set_values
from skvae._table_model import TableDecoder
from skvae.priors import ConditionalMixturePrior

# Rows that regressions are fitted to, and their ridge, a share of the rows.
_ROWS, _RIDGE = 8192, 1e-3
# Codes from which on a column is a number.
_MIN_CODES = 5
# The variance left at least, and the precision that all columns together gain at most:
# what is sharper has to be learned, a start as sharp as that breaks at large steps.
_MIN_VARIANCE, _MAX_PRECISION = 0.1, 100.0


def start_at_mixture(
    module: Any,
    log_weights: np.ndarray,
    log_probs: np.ndarray,
    frequencies: np.ndarray,
    code_values: np.ndarray,
    spread: float,
) -> None:
    """Set a table module to a mixture of factorised components.

    The components' log-probabilities are factored by a weighted singular value
    decomposition: component k sits at position Z_k of the code space and the linear
    path of the decoder maps Z_k to its logits. A row is encoded at the mean position
    under its responsibilities.

    Parameters
    ----------
    module : AutoencoderModule
        Module with table features.
    log_weights : ndarray of shape (n_mixture,)
        Log-weights of the components.
    log_probs : ndarray of shape (n_codes, n_mixture)
        Log-probabilities of each code under each component.
    frequencies : ndarray of shape (n_codes,)
        Share of each code in its column.
    code_values : ndarray of shape (n_codes,)
        Normal score of each code.
    spread : float
        Standard deviation of a row's posterior, and of a component of the prior.
    """
    features, encoder, decoder = module.features, module.encoder, module.decoder
    k = features.n_components
    weights = np.exp(log_weights - np.logaddexp.reduce(log_weights))
    base, slopes, positions = _factored(log_probs, weights, frequencies, k)
    with torch.no_grad():
        set_values(features.log_probs[:-1], log_probs)
        set_values(features.log_weights, log_weights)
        set_values(features.positions, positions)
        set_values(features.code_values[:-1], code_values)
        # Random and own networks have no linear path to set.
        if getattr(encoder, "linear_weight", None) is not None:
            encoder.linear_weight.zero_()
            set_values(encoder.linear_weight[:, :k], np.eye(k))
            encoder.bias.zero_()
            if encoder.n_out == 2 * k:
                encoder.bias[k:] = 2 * float(np.log(spread))
        if isinstance(decoder, TableDecoder):
            linear: Any = decoder.linear
            set_values(linear.linear_weight[:, :k], slopes)
            set_values(linear.bias, base)
    if hasattr(module.prior, "set_from"):
        module.prior.set_from(
            torch.as_tensor(weights),
            torch.as_tensor(positions),
            torch.full(positions.shape, spread**2, dtype=torch.float64),
        )


def _factored(
    log_probs: np.ndarray, weights: np.ndarray, frequencies: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Factor log-probabilities as base + slopes @ positions.T, with k columns each.

    Codes count by their frequencies, and components of the mixture by their weights.
    """
    base = log_probs @ weights
    of_code = np.sqrt(np.maximum(frequencies, 1e-6))[:, None]
    left, values, right = np.linalg.svd(
        of_code * np.sqrt(weights) * (log_probs - base[:, None]), full_matrices=False
    )
    rank = min(k, len(values))
    positions = np.zeros((len(weights), k))
    # Weighted unit variance of the positions along each component.
    positions[:, :rank] = right[:rank].T / np.sqrt(np.maximum(weights, 1e-12))[:, None]
    slopes = np.zeros((len(base), k))
    slopes[:, :rank] = left[:, :rank] * values[:rank] / of_code
    return base, slopes, positions


def start_at_classes(module: Any, codes: np.ndarray, condition: np.ndarray) -> None:
    r"""Let each class begin with the components of the mixture that its rows are in.

    The weights of the components become :math:`p(m \mid y) \propto p(m) \prod_j
    p(m \mid y_j) / p(m)` over the conditions that are classes; numbers begin without.

    Parameters
    ----------
    module : AutoencoderModule
        A table module at its mixture.
    codes : ndarray of shape (n_rows, n_columns)
        Codes of training rows.
    condition : ndarray of shape (n_rows, n_conditions)
        Their conditions; NaN in rows without a label.
    """
    prior, features = module.prior, module.features
    if not isinstance(prior, ConditionalMixturePrior):
        return
    told = ~np.isnan(condition).any(axis=1)
    known = condition[told]
    with torch.no_grad():
        found = features.responsibilities(torch.as_tensor(codes[told]))
        shares = found.double().numpy()
        weights = torch.softmax(prior.log_weights, dim=0).double().numpy()
        for j in np.flatnonzero(np.isin(known, (0.0, 1.0)).all(axis=0)):
            own = known[:, j] == 1
            # As if each class had one row more, of all components alike.
            share = (shares[own].sum(axis=0) + weights) / (own.sum() + 1)
            set_values(prior.gates[:, j], np.log(share / np.maximum(weights, 1e-12)))


def has_context(module: Any) -> bool:
    """Tell whether logits of a table also depend on the columns before their own."""
    depends = isinstance(module.likelihood, AutoregressiveLikelihood)
    return depends and isinstance(module.decoder, TableDecoder)


def start_at_regressions(
    module: Any, codes: np.ndarray, codec: Any, spread: float, rng: np.random.Generator
) -> None:
    r"""Set context weights between numbers to linear regressions.

    The normal score :math:`u` of a column is regressed on the code alone, with the
    prediction :math:`m_0` and the variance :math:`w^2`, and on the code and the columns
    before, with :math:`m` and :math:`s^2`. Logits gain the log-ratio of the two normal
    densities,

    .. math:: u \Big(\frac{m}{s^2} - \frac{m_0}{w^2}\Big)
              - \frac{u^2}{2} \Big(\frac{1}{s^2} - \frac{1}{w^2}\Big) :

    what the mixture predicts of a column remains, what other columns add comes on top.
    Where many columns predict each other closely, variances are taken to be larger.

    Parameters
    ----------
    module : AutoencoderModule
        A table module at its mixture, with context weights.
    codes : ndarray of shape (n_rows, n_columns)
        Codes of training rows.
    codec : TableCodec
        Fitted codec.
    spread : float
        Standard deviation of a row's posterior.
    rng : Generator
        Chooses rows, and draws their codes.
    """
    likelihood = module.likelihood
    linear: Any = module.decoder.linear
    some = codes[rng.permutation(len(codes))[:_ROWS]]
    scores = torch.as_tensor(codec.code_values).to(likelihood.entries)
    with torch.no_grad():
        smooth = likelihood.smoother(scores)
        z = drawn_codes(module.features, some, spread, rng)
        u = smooth.double().numpy()[some + codec.offsets]
        numbers = context_numbers(codec, likelihood)
        fits = [
            _regressions(j, numbers[:i], z, u, some[:, j] != codec.missing_code[j])
            for i, j in enumerate(numbers)
        ]
        least = _least_variance([joint.variance for _, joint in fits])
        weight = torch.zeros_like(likelihood.weight)
        for i, (j, (alone, joint)) in enumerate(zip(numbers, fits, strict=True)):
            whole, place = codec.places(j)
            likelihood.entries[0, whole] = scores[whole]
            w2, s2 = max(alone.variance, least), max(joint.variance, least)
            k, own = z.shape[1], smooth[place]
            precision = 1 / s2 - 1 / w2
            slopes = torch.as_tensor(joint.slopes[:k] / s2 - alone.slopes / w2).to(own)
            level = torch.as_tensor(joint.level / s2 - alone.level / w2).to(own)
            linear.bias[place] += own * level - own.square() * (precision / 2)
            linear.linear_weight[place, :k] += torch.outer(own, slopes)
            for before, slope in zip(numbers[:i], joint.slopes[k:] / s2, strict=True):
                weight[before * likelihood.width, place] = scores[place] * float(slope)
    likelihood.start_at(weight)


def drawn_codes(
    features: Any, codes: np.ndarray, spread: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw the code of each row around the mean position under its components."""
    where = features.responsibilities(torch.as_tensor(codes)) @ features.positions
    return where.double().numpy() + spread * rng.normal(size=where.shape)


def context_numbers(codec: Any, likelihood: Any) -> list[int]:
    """Return the columns that are numbers with heads of their own."""
    return [
        j
        for j, column in enumerate(codec.columns)
        if column.kind != "category"
        and column.size >= _MIN_CODES
        and j not in likelihood.followers
    ]


@dataclass(frozen=True)
class _Regression:
    """A ridge regression, and the variance that it leaves.

    Parameters
    ----------
    slopes : ndarray of shape (n_inputs,)
        Slopes.
    level : float
        Prediction where all inputs are zero.
    variance : float
        Mean squared residual.
    """

    slopes: np.ndarray
    level: float
    variance: float

    @classmethod
    def fit(cls, x: np.ndarray, y: np.ndarray) -> _Regression:
        """Fit the regression; the ridge is on the slopes alone."""
        design = np.column_stack([x, np.ones(len(x))])
        gram = design.T @ design
        gram[np.diag_indices(len(gram) - 1)] += _RIDGE * len(x)
        coefficients = np.linalg.solve(gram, design.T @ y)
        variance = float(np.mean((y - design @ coefficients) ** 2))
        return cls(coefficients[:-1], coefficients[-1], variance)


def _regressions(
    j: int, before: list[int], z: np.ndarray, u: np.ndarray, known: np.ndarray
) -> tuple[_Regression, _Regression]:
    """Regress the scores of column j on the code, and on columns before it too."""
    inputs = np.column_stack([z, u[:, before]])
    if known.sum() < 2 * inputs.shape[1]:
        known = np.ones_like(known)  # So few would tell too much of themselves.
    own = u[known, j]
    return _Regression.fit(z[known], own), _Regression.fit(inputs[known], own)


def _least_variance(left: list[float]) -> float:
    """Return the variance that columns are left at least, so that none is too sharp."""
    least = _MIN_VARIANCE
    while sum(1 / max(s2, least) - 1 for s2 in left) > _MAX_PRECISION:
        least *= 1.1
    return least
