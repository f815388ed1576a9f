"""A learned prior follows the codes: fitted to them before training, and after it.

Given encoder and decoder, the prior that makes the bound largest is the one closest to
the aggregated posterior, the codes of the training rows drawn from their posteriors.
Gradient steps only come near it; expectation maximisation gets there.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn import config_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from skvae.objectives import ParameterPenalty
from skvae.priors import ConditionalMixturePrior, MixturePrior, Prior, VampPrior

# Codes a mixture is fitted to, and rounds of expectation maximisation.
MAX_CODES = 20_000
_ROUNDS = 50
# Variance added to normals fitted once more from the start.
_WIDENING = 0.02
_CHUNK = 4096
_MAX_NORMALS, _NORMALS_A_CLASS, _ROWS_A_NORMAL = 128, 10, 40
# Log-odds that a normal belongs to its own class and no other.
_OWN = 12.0

Mixture = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class PriorPenalty(ParameterPenalty):
    r"""Squared means and log-variances of a mixture prior.

    With the weight :math:`\lambda` it is, up to a constant, a row's share of the
    negative log-density of a normal hyperprior with the variance
    :math:`1 / 2 \lambda n`: normals that a few rows would have to themselves draw near
    :math:`N(0, I)`. Rows held out judge the model without it.
    """

    name: ClassVar[str] = "prior"

    def size(self, model: Any) -> torch.Tensor | None:
        """Compute the penalty, None for a prior that is not a mixture."""
        if not isinstance(model.prior, MixturePrior):
            return None
        return torch.cat([model.prior.means, model.prior.log_vars]).square().sum()


def prior_is_learned(module: Any) -> bool:
    """Tell whether the prior has something to start at."""
    return isinstance(module.prior, (MixturePrior, VampPrior))


def conditional_normals(n_rows: int, n_conditions: int, usual: int) -> int:
    """Return how many normals a conditional prior has: some for each class.

    Parameters
    ----------
    n_rows : int
        Training rows.
    n_conditions : int
        Numbers a condition is written as: the classes, if there are any.
    usual : int
        Normals of a prior without conditions.
    """
    most = min(_NORMALS_A_CLASS, _MAX_NORMALS // n_conditions)
    each = min(most, n_rows // (_ROWS_A_NORMAL * n_conditions))
    return max(usual, n_conditions * max(each, 1))


def start_prior(
    module: Any, inputs: torch.Tensor, seed: int, condition: Any = None
) -> None:
    """Set a learned prior to the codes of training rows.

    A mixture is fitted to the posterior means, widened by the mean posterior
    variance; the pseudo-rows of a VampPrior start at training rows.
    """
    prior = module.prior
    module.eval()
    with torch.no_grad():
        if isinstance(prior, VampPrior):
            rng = np.random.RandomState(seed)
            wanted = len(prior.pseudo_inputs)
            chosen = rng.choice(len(inputs), wanted, replace=wanted > len(inputs))
            prior.pseudo_inputs.copy_(inputs[torch.as_tensor(chosen)])
            return
        mean, log_var = module.posterior(inputs)
    widening = torch.exp(log_var).mean(0).cpu().numpy()
    fit_prior(prior, mean.double().cpu().numpy(), condition, seed, widening)


def fit_prior(
    prior: Any, codes: np.ndarray, condition: Any, seed: int, widening: Any = 0.0
) -> None:
    """Fit a mixture to codes, one for each class where there are classes.

    Parameters
    ----------
    prior : MixturePrior
        Changed in place.
    codes : ndarray of shape (n_rows, n_components)
        Codes.
    condition : ndarray of shape (n_rows, n_conditions) or None
        Conditions of the rows.
    seed : int
        Of the fits.
    widening : ndarray of shape (n_components,) or float, default=0.0
        Added to the variances.
    """
    if not isinstance(prior, ConditionalMixturePrior):
        _set(prior, _fitted(codes, prior.n_mixture, seed), widening)
        return
    each = prior.n_mixture // condition.shape[1]
    with torch.no_grad():
        prior.gates.zero_()
        prior.shift.zero_()
    if not each or not _is_one_hot(condition):
        slopes = np.linalg.lstsq(_with_one(condition), codes, rcond=None)[0][1:]
        with torch.no_grad():
            prior.shift.copy_(torch.as_tensor(slopes.T))
        rest = codes - condition @ slopes
        _set(prior, _fitted(rest, prior.n_mixture, seed), widening)
        return
    owner = np.arange(prior.n_mixture) % condition.shape[1]
    parts = [np.empty(prior.n_mixture), *(np.empty(prior.means.shape) for _ in "mv")]
    for label in range(condition.shape[1]):
        own, rows = owner == label, codes[condition[:, label] == 1]
        fitted = _fitted(rows if len(rows) else codes, int(own.sum()), seed)
        for part, value in zip(parts, fitted, strict=True):
            part[own] = value
    _set(prior, (parts[0], parts[1], parts[2]), widening)
    with torch.no_grad():
        one_hot = torch.as_tensor(np.eye(condition.shape[1])[owner])
        prior.gates.copy_(_OWN * one_hot)


def refit_prior(
    module: Any, fit: Any, check: Any, seed: int, *, again: bool = False
) -> bool:
    """Fit a trained mixture to the codes once more, if that raises the bound.

    Parameters
    ----------
    module : AutoencoderModule
        Its prior is changed in place.
    fit, check : tuple of ndarray and ndarray or None
        Codes drawn from the posteriors of training rows, and of the rows to judge
        by, each with their conditions.
    seed : int
        Of the fits.
    again : bool, default=False
        Whether normals have drawn too near to each other to begin at.

    Returns
    -------
    better : bool
        Whether the fitted prior is kept.
    """
    prior = module.prior
    before = {name: p.detach().clone() for name, p in prior.named_parameters()}
    reached = _mean_log_prob(prior, *check)
    if isinstance(prior, ConditionalMixturePrior):
        fit_prior(prior, fit[0], fit[1], seed)
    elif again:
        _set(prior, _fitted(fit[0], prior.n_mixture, seed), _WIDENING)
    else:
        now: Mixture = (
            torch.softmax(prior.log_weights, 0).detach().double().cpu().numpy(),
            prior.means.detach().double().cpu().numpy(),
            torch.exp(prior.log_vars).detach().double().cpu().numpy(),
        )
        _set(prior, _fitted(fit[0], prior.n_mixture, seed, now), 0.0)
    if _mean_log_prob(prior, *check) > reached:
        return True
    with torch.no_grad():
        for name, parameter in prior.named_parameters():
            parameter.copy_(before[name])
    return False


def condition_of(batch: dict[str, torch.Tensor]) -> torch.Tensor | None:
    """Return the conditions of a batch, with shares for rows without a label.

    Parameters
    ----------
    batch : dict of str to Tensor
        Rows and what they carry.

    Returns
    -------
    condition : Tensor of shape (n_rows, n_conditions) or None
        None for models without conditions.
    """
    condition = batch.get("condition")
    if condition is None or "label_prior" not in batch:
        return condition
    return torch.where(torch.isnan(condition), batch["label_prior"], condition)


def labels_of(batch: dict[str, torch.Tensor]) -> np.ndarray | None:
    """Return the conditions of a batch, the most probable where there is no label.

    Parameters
    ----------
    batch : dict of str to Tensor
        Rows and what they carry.

    Returns
    -------
    condition : ndarray of shape (n_rows, n_conditions) or None
        None for models without conditions.
    """
    condition = condition_of(batch)
    if condition is None:
        return None
    if "label_prior" in batch:
        likely = batch["label_prior"].argmax(dim=1)
        guess = torch.eye(condition.shape[1]).to(condition)[likely]
        condition = torch.where(torch.isnan(batch["condition"]), guess, condition)
    return condition.double().cpu().numpy()


def drawn_codes(
    module: Any, dataset: Any, rows: np.ndarray, generator: torch.Generator
) -> tuple[np.ndarray, np.ndarray | None]:
    """Draw the codes of rows from their posteriors, and give their labels.

    Parameters
    ----------
    module : AutoencoderModule
        A variational model.
    dataset : RowDataset
        Stored rows.
    rows : ndarray of int
        Which of them.
    generator : torch.Generator
        Draws the noise.

    Returns
    -------
    codes : ndarray of shape (n_rows, n_components)
        One draw a row.
    labels : ndarray of shape (n_rows, n_conditions) or None
        None for models without conditions.
    """
    codes: list[np.ndarray] = []
    labels: list[Any] = []
    module.eval()
    with torch.inference_mode():
        for start in range(0, len(rows), _CHUNK):
            batch = dataset.take(rows[start : start + _CHUNK])
            mean, log_var = module.posterior(module.encoder_input(**batch))
            noise = torch.empty_like(mean).normal_(generator=generator)
            z = torch.addcmul(mean, noise, torch.exp(0.5 * log_var))
            codes.append(z.double().cpu().numpy())
            labels.append(labels_of(batch))
    known = None if labels[0] is None else np.concatenate(labels)
    return np.concatenate(codes), known


def _mean_log_prob(prior: Prior, codes: np.ndarray, condition: Any) -> float:
    like = next(prior.parameters())
    known = None if condition is None else torch.as_tensor(condition).to(like)
    with torch.no_grad():
        density = prior.distribution(condition=known)
        return float(density.log_prob(torch.as_tensor(codes).to(like)).mean())


def _fitted(
    codes: np.ndarray, n_normals: int, seed: int, start: Mixture | None = None
) -> Mixture:
    """Return weights, means and variances of a mixture fitted to codes."""
    if len(codes) < 2:
        codes = np.repeat(codes, 2, axis=0)
    normals = min(n_normals, len(codes))
    named: dict[str, Any] = {}
    if start is not None and normals == n_normals:
        weights = start[0] / start[0].sum()
        named = {"weights_init": weights, "means_init": start[1]}
        named["precisions_init"] = 1 / start[2]
    mixture = GaussianMixture(
        normals,
        covariance_type="diag",
        reg_covar=1e-3,
        max_iter=_ROUNDS,
        random_state=seed,
        **named,
    )
    # k-means has no array-API version; these are NumPy arrays whatever X was.
    with warnings.catch_warnings(), config_context(array_api_dispatch=False):
        # Stopped short of convergence it is still a fine place to start.
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(codes)
    # Fewer codes than normals: some stand in the same place, and share the weight.
    place = np.arange(n_normals) % normals
    share = np.bincount(place)[place]
    weights = np.maximum(mixture.weights_[place] / share, 1e-12)
    return weights, mixture.means_[place], mixture.covariances_[place]


def _set(prior: Any, mixture: Mixture, widening: Any) -> None:
    weights, means, variances = mixture
    prior.set_from(
        torch.as_tensor(weights),
        torch.as_tensor(means),
        torch.as_tensor(variances + widening),
    )


def _is_one_hot(condition: np.ndarray) -> bool:
    return bool(np.all((condition == 0) | (condition == 1))) and bool(
        np.all(condition.sum(axis=1) == 1)
    )


def _with_one(condition: np.ndarray) -> np.ndarray:
    return np.column_stack([np.ones(len(condition)), condition])
