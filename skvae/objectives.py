"""Terms of the training objective: each gives one value per row, in nats.

An objective is a weighted sum of terms. Terms marked ``scored`` make up, at
weight one, the score of a model; the others (penalties) steer training only, so
no penalty and no ``beta`` can leak into a score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "TERMS",
    "Contraction",
    "KLDivergence",
    "NegativeLogLikelihood",
    "Objective",
    "Sparsity",
    "Term",
    "kl_bernoulli",
]

_AUTOCAST_DEVICES = ("cpu", "cuda", "mps")


@dataclass(frozen=True)
class Term:
    """One term of an objective.

    A subclass implements ``__call__(model, out, progress)`` and returns one value
    per row (per importance sample and row where the model draws several).

    Parameters
    ----------
    weight : float, default=1.0
        Factor of the term in the loss.

    Attributes
    ----------
    name : str
        Column of the history the term is recorded in.
    scored : bool
        Whether the term, at weight one, belongs to the score.

    See Also
    --------
    Objective : The weighted sum of terms.

    Examples
    --------
    >>> from skvae.objectives import Sparsity
    >>> Sparsity(weight=0.1, kind="l1").name
    'sparsity'
    """

    weight: Any = 1.0
    name: ClassVar[str] = "term"
    scored: ClassVar[bool] = False

    def __call__(self, model: Any, out: Any, progress: float = 1.0) -> Tensor:
        """Compute the term of each row; see the subclasses."""
        raise NotImplementedError

    def weight_at(self, progress: float) -> float:
        """Return the factor of the term after a fraction of the training.

        Parameters
        ----------
        progress : float
            Fraction of the optimiser steps done, in [0, 1].

        Returns
        -------
        weight : float
            Factor of the term in the loss.
        """
        return self.weight


@dataclass(frozen=True)
class ParameterPenalty(Term):
    """A penalty on parameters, the same for each row; rows held out do not pay it.

    A subclass implements ``size(model)``.
    """

    def size(self, model: Any) -> Tensor | None:
        """Compute the penalty, None for a model without such parameters."""
        raise NotImplementedError

    def __call__(self, model: Any, out: Any, progress: float = 1.0) -> Tensor:
        """Compute the penalty of each row."""
        rows = out.z.shape[:-1]
        size = self.size(model) if model.training else None
        return out.z.new_zeros(rows) if size is None else size.expand(rows)


@dataclass(frozen=True)
class NegativeLogLikelihood(Term):
    r"""Negative log-likelihood of a row given its code.

    .. math:: -\log p(x \mid z) = -\sum_j \log p(x_j \mid z)

    Summed over the columns, in nats. Cells that are missing are left out.

    Parameters
    ----------
    weight : float, default=1.0
        Factor of the term in the loss.

    See Also
    --------
    KLDivergence : The other part of the evidence lower bound.

    Examples
    --------
    >>> from skvae.objectives import NegativeLogLikelihood
    >>> NegativeLogLikelihood().scored
    True
    """

    name: ClassVar[str] = "nll"
    scored: ClassVar[bool] = True

    def __call__(self, model: Any, out: Any, progress: float = 1.0) -> Tensor:
        """Compute the negative log-likelihood of each row."""
        return -model.log_likelihood(out)


@dataclass(frozen=True)
class KLDivergence(Term):
    r"""Divergence of the approximate posterior from the prior.

    .. math:: \beta \, KL(q(z \mid x) \,\|\, p(z))

    In closed form for a standard normal prior and a single draw, otherwise by
    the draw itself, :math:`\log q(z|x) - \log p(z)`.

    Parameters
    ----------
    weight : float, default=1.0
        The factor :math:`\beta` at the end of training.
    warmup : float, default=0.0
        Fraction of the training over which the factor rises linearly from zero.
    free_bits : float, default=0.0
        Nats a component may use at no cost: components whose mean divergence
        over the batch lies below it do not feel the term [1]_. Takes effect
        where the divergence has a closed form: a standard normal prior and a
        single draw. The estimators refuse it elsewhere.

    See Also
    --------
    NegativeLogLikelihood : The other part of the evidence lower bound.

    References
    ----------
    .. [1] Kingma, Salimans, Jozefowicz, Chen, Sutskever, Welling (2016).
       Improved Variational Inference with Inverse Autoregressive Flow, appendix C.8.
       arXiv:1606.04934

    Examples
    --------
    >>> from skvae.objectives import KLDivergence
    >>> KLDivergence(weight=4.0, warmup=0.5).weight_at(0.25)
    2.0
    """

    warmup: float = 0.0
    free_bits: float = 0.0
    name: ClassVar[str] = "kl"
    scored: ClassVar[bool] = True

    def __call__(self, model: Any, out: Any, progress: float = 1.0) -> Tensor:
        """Compute the divergence of each row."""
        components = out.kl
        if components is None:
            return model.sampled_kl(out)
        if self.free_bits > 0:
            paid = components.mean(dim=0) > self.free_bits
            free = components.new_tensor(self.free_bits)
            components = torch.where(paid, components, free)
        return components.sum(dim=-1)

    def weight_at(self, progress: float) -> float:
        """Return beta after a fraction of the training.

        Parameters
        ----------
        progress : float
            Fraction of the optimiser steps done, in [0, 1].

        Returns
        -------
        weight : float
            Factor of the term in the loss.
        """
        if self.warmup <= 0 or progress >= self.warmup:
            return self.weight
        return self.weight * progress / self.warmup


def kl_bernoulli(target: float, mean: Tensor) -> Tensor:
    r"""Compute the divergence between Bernoulli variables, elementwise.

    .. math:: \rho \log\frac{\rho}{\hat\rho}
              + (1 - \rho) \log\frac{1 - \rho}{1 - \hat\rho}

    Parameters
    ----------
    target : float
        The mean :math:`\rho` asked for, in (0, 1).
    mean : Tensor
        The means :math:`\hat\rho` found, in [0, 1].

    Returns
    -------
    divergence : Tensor
        Nats, of the shape of `mean`.

    Examples
    --------
    >>> import torch
    >>> from skvae.objectives import kl_bernoulli
    >>> kl_bernoulli(0.5, torch.tensor([0.5])).item()
    0.0
    """
    eps = torch.finfo(mean.dtype).eps
    mean = mean.clamp(eps, 1 - eps)
    on = target * (math.log(target) - torch.log(mean))
    off = (1 - target) * (math.log1p(-target) - torch.log1p(-mean))
    return on + off


@dataclass(frozen=True)
class Sparsity(Term):
    r"""Penalty on the activations of the code layer.

    * ``"kl"``: :math:`\sum_k KL(\rho \,\|\, \hat\rho_k)` with
      :math:`\hat\rho_k` the mean activation of component k over the batch [1]_;
      for codes in (0, 1).
    * ``"l1"``: :math:`\sum_k |z_k|`.
    * ``"l2"``: :math:`\sum_k z_k^2`.

    Parameters
    ----------
    weight : float, default=1.0
        Factor of the term in the loss.
    kind : {"kl", "l1", "l2"}, default="l1"
        Which penalty.
    target : float, default=0.05
        The mean activation :math:`\rho` asked for, used by ``"kl"``.

    See Also
    --------
    Contraction : Penalty on the slope of the code instead of its size.

    References
    ----------
    .. [1] Ng (2011). Sparse autoencoder. CS294A lecture notes, section 3.

    Examples
    --------
    >>> from skvae.objectives import Sparsity
    >>> Sparsity(kind="kl", target=0.1).target
    0.1
    """

    kind: str = "l1"
    target: float = 0.05
    name: ClassVar[str] = "sparsity"

    def __call__(self, model: Any, out: Any, progress: float = 1.0) -> Tensor:
        """Compute the penalty of each row."""
        if self.kind == "l1":
            return out.z.abs().sum(dim=-1)
        if self.kind == "l2":
            return out.z.square().sum(dim=-1)
        penalty = kl_bernoulli(self.target, out.z.mean(dim=-2)).sum(dim=-1)
        return penalty.expand(out.z.shape[:-1])


@dataclass(frozen=True)
class Contraction(Term):
    r"""Squared Frobenius norm of the encoder's Jacobian.

    .. math:: \|J(x)\|_F^2 = \sum_{ki} (\partial z_k / \partial x_i)^2

    Computed without ``autograd.grad``, so it also works in validation.

    Parameters
    ----------
    weight : float, default=1.0
        Factor of the term in the loss.
    method : {"auto", "exact", "subset", "hutchinson"}, default="auto"
        ``"exact"`` on every row; ``"subset"`` exactly on a random part of the
        rows, scaled up, and zero on the others; ``"hutchinson"`` by one random
        projection a row. All are unbiased for every row. ``"auto"`` is exact for
        encoders of at most one hidden layer and a subset for deeper ones.

    See Also
    --------
    Sparsity : Penalty on the size of the code instead of its slope.

    References
    ----------
    .. [1] Rifai, Vincent, Muller, Glorot, Bengio (2011). Contractive
       Auto-Encoders: Explicit Invariance During Feature Extraction. ICML.

    Examples
    --------
    >>> from skvae.objectives import Contraction
    >>> Contraction(weight=0.1).name
    'contraction'
    """

    method: str = "auto"
    name: ClassVar[str] = "contraction"

    def __call__(self, model: Any, out: Any, progress: float = 1.0) -> Tensor:
        """Compute the squared norm of each row."""
        return model.squared_jacobian_norm(out, self.method)


TERMS = {
    term.name: term
    for term in (NegativeLogLikelihood, KLDivergence, Sparsity, Contraction)
}


class Objective(nn.Module):
    """The weighted sum of terms that training minimises.

    Parameters
    ----------
    terms : sequence of Term
        The terms, at least one.

    Attributes
    ----------
    progress : float
        Fraction of the training done; the net moves it.

    See Also
    --------
    Term : Base of the terms.

    Examples
    --------
    >>> from skvae.objectives import NegativeLogLikelihood, Objective
    >>> Objective((NegativeLogLikelihood(),)).names
    ['nll']
    """

    def __init__(self, terms: Sequence[Term]):
        super().__init__()
        self.terms = tuple(terms)
        self.progress = 1.0

    @property
    def names(self) -> list[str]:
        """Names of the terms, in order."""
        return [term.name for term in self.terms]

    def rows(self, model: Any, out: Any) -> Mapping[str, Tensor]:
        """Compute the unweighted terms.

        Parameters
        ----------
        model : nn.Module
            The autoencoder module.
        out : Pass
            What its forward pass returned.

        Returns
        -------
        values : dict of str to Tensor of shape (..., n_rows)
            Nats per row, by the name of the term.
        """
        return {term.name: term(model, out, self.progress) for term in self.terms}

    def forward(self, model: Any, out: Any) -> tuple[Tensor, list[Tensor]]:
        r"""Compute the loss of a batch and the mean of each term.

        Parameters
        ----------
        model : nn.Module
            The autoencoder module.
        out : Pass
            What its forward pass returned.

        Returns
        -------
        loss : Tensor of shape ()
            Weighted mean over the rows of the weighted sum of the terms. With
            several importance samples the scored terms are combined as
            :math:`-\log \frac1K \sum_k e^{-l_k}`.
        parts : list of Tensor of shape ()
            Mean of each term over the rows, in the order of `names`.
        """
        for kind in filter(torch.is_autocast_enabled, _AUTOCAST_DEVICES):
            # Networks may run in half precision; sums of nats may not.
            with torch.autocast(kind, enabled=False):
                return self._combined(model, _in_full_precision(out))
        return self._combined(model, out)

    def row_losses(self, model: Any, out: Any) -> Tensor:
        """Compute the loss of each row, of which `forward` takes the mean.

        Parameters
        ----------
        model : nn.Module
            The autoencoder module.
        out : Pass
            What its forward pass returned.

        Returns
        -------
        losses : Tensor of shape (n_rows,)
            Nats per row.
        """
        return self._by_row(model, out)[0]

    def _combined(self, model: Any, out: Any) -> tuple[Tensor, list[Tensor]]:
        losses, parts = self._by_row(model, out)
        return losses.mean(), parts

    def _by_row(self, model: Any, out: Any) -> tuple[Tensor, list[Tensor]]:
        """Return the loss of each row and the mean of each term."""
        total, penalty, parts = None, None, []
        for term in self.terms:
            value = term(model, out, self.progress)
            weighted = value * term.weight_at(self.progress)
            if out.n_samples > 1 and not term.scored:
                penalty = weighted if penalty is None else penalty + weighted
            else:
                total = weighted if total is None else total + weighted
            parts.append(value.detach().mean())
        assert total is not None
        if out.n_samples > 1:
            total = math.log(out.n_samples) - torch.logsumexp(-total, dim=0)
            total = total if penalty is None else total + penalty.mean(dim=0)
        return total, parts


def _in_full_precision(out: Any) -> Any:
    half = (torch.float16, torch.bfloat16)
    return type(out)(
        *(v.float() if isinstance(v, Tensor) and v.dtype in half else v for v in out)
    )
