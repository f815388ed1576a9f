"""Priors p(z): where the codes of a variational autoencoder are expected to lie.

A prior is a module with what is learned; `Prior.distribution` gives its density for
one step, so that what is costly (the encoder over pseudo-inputs) is done once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from skvae._mixture_density import (
    LOG_TAU,
    MIN_LOG_VAR,
    ConditionalMixture,
    DiagonalMixture,
)

__all__ = [
    "PRIORS",
    "ConditionalMixturePrior",
    "MixturePrior",
    "NormalPrior",
    "Prior",
    "PriorDistribution",
    "VampPrior",
    "normal_kl",
    "normal_log_prob",
]

Encode = Callable[[Tensor], tuple[Tensor, Tensor]]


def normal_kl(mean: Tensor, log_var: Tensor) -> Tensor:
    r"""Compute the divergence of a normal from the standard normal.

    .. math:: KL = \tfrac12 (\mu^2 + \sigma^2 - 1 - \log \sigma^2)

    Parameters
    ----------
    mean : Tensor of shape (..., n_components)
        Means.
    log_var : Tensor of shape (..., n_components)
        Log-variances.

    Returns
    -------
    kl : Tensor of shape (..., n_components)
        Divergence of each component, in nats.

    Examples
    --------
    >>> import torch
    >>> from skvae.priors import normal_kl
    >>> normal_kl(torch.tensor([0.0, 2.0]), torch.zeros(2))
    tensor([0., 2.])
    """
    return 0.5 * (mean.square() + (torch.expm1(log_var) - log_var))


def normal_log_prob(z: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """Compute the log-density of codes under normals of independent components.

    Parameters
    ----------
    z : Tensor of shape (..., n_components)
        Codes.
    mean : Tensor of shape (..., n_components)
        Means.
    log_var : Tensor of shape (..., n_components)
        Log-variances.

    Returns
    -------
    log_prob : Tensor of shape (...)
        Log-density summed over the components, in nats.

    Examples
    --------
    >>> import torch
    >>> from skvae.priors import normal_log_prob
    >>> normal_log_prob(torch.zeros(1, 2), torch.zeros(2), torch.zeros(2))
    tensor([-1.8379])
    """
    squares = (z - mean).square() * torch.exp(-log_var)
    return -0.5 * (squares + log_var + LOG_TAU).sum(-1)


class PriorDistribution(Protocol):
    """Density of the codes during one step: `log_prob` and `draw`."""

    def log_prob(self, z: Tensor) -> Tensor:
        """Compute the log-density of codes.

        Parameters
        ----------
        z : Tensor of shape (..., n_components)
            Codes.

        Returns
        -------
        log_prob : Tensor of shape (...)
            Log-density, in nats.
        """

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw codes.

        Parameters
        ----------
        n : int
            Number of codes.
        generator : torch.Generator
            Source of randomness, on the device of the prior.

        Returns
        -------
        z : Tensor of shape (n, n_components)
            Codes, without gradient.
        """


class _StandardNormal:
    """Independent standard normal components."""

    def __init__(self, like: Tensor, n_components: int) -> None:
        self.like = like
        self.n_components = n_components

    def log_prob(self, z: Tensor) -> Tensor:
        return -0.5 * (z.square().sum(-1) + self.n_components * LOG_TAU)

    @torch.no_grad()
    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(
            (n, self.n_components),
            generator=generator,
            dtype=self.like.dtype,
            device=self.like.device,
        )


class Prior(nn.Module):
    """Density of the codes; base of the priors.

    A subclass gives `distribution`.

    Parameters
    ----------
    n_components : int
        Number of components of a code.

    See Also
    --------
    skvae.likelihoods.Likelihood : Density of a row given its code.

    Examples
    --------
    >>> from skvae.priors import PRIORS
    >>> sorted(PRIORS)
    ['mixture', 'normal', 'vamp']
    """

    def __init__(self, n_components: int) -> None:
        super().__init__()
        if n_components < 1:
            raise ValueError(f"n_components must be at least 1. Got {n_components!r}.")
        self.n_components = int(n_components)

    def distribution(
        self, encode: Encode | None = None, condition: Tensor | None = None
    ) -> PriorDistribution:
        """Give the density as the parameters stand now.

        Parameters
        ----------
        encode : callable, default=None
            Maps rows to the means and log-variances of their codes. Only `VampPrior`
            needs it.
        condition : Tensor of shape (n_rows, n_conditions), default=None
            Conditions of the rows. Only `ConditionalMixturePrior` needs it.

        Returns
        -------
        distribution : PriorDistribution
            Object with `log_prob(z)` and `draw(n, generator)`.
        """
        raise NotImplementedError


class NormalPrior(Prior):
    """The standard normal prior.

    Parameters
    ----------
    n_components : int
        Number of components of a code.

    See Also
    --------
    MixturePrior : A mixture of normals learned with the model.

    Examples
    --------
    >>> import torch
    >>> from skvae.priors import NormalPrior
    >>> NormalPrior(2).distribution().log_prob(torch.zeros(1, 2))
    tensor([-1.8379])
    """

    _like: Tensor

    def __init__(self, n_components: int) -> None:
        super().__init__(n_components)
        # Remembers dtype and device; holds nothing to save.
        self.register_buffer("_like", torch.zeros(()), persistent=False)

    def distribution(
        self, encode: Encode | None = None, condition: Tensor | None = None
    ) -> PriorDistribution:
        """Give the standard normal; see `Prior`."""
        return _StandardNormal(self._like, self.n_components)


class MixturePrior(Prior):
    r"""A mixture of normals with independent components, learned with the model.

    .. math:: p(z) = \sum_m \pi_m \prod_i N(z_i; \mu_{mi}, \sigma_{mi}^2)

    Log-variances are floored at -12, so that no component can shrink to a point.

    Parameters
    ----------
    n_components : int
        Number of components of a code.
    n_mixture : int, default=10
        Number of normals.
    generator : torch.Generator, default=None
        Draws the first means, on the CPU; by default one with a fixed seed.

    Attributes
    ----------
    log_weights : Parameter of shape (n_mixture,)
        Logarithms of the weights, up to a constant.
    means : Parameter of shape (n_mixture, n_components)
        Means.
    log_vars : Parameter of shape (n_mixture, n_components)
        Log-variances.

    See Also
    --------
    sklearn.mixture.GaussianMixture : Gives a start for `set_from`.

    Examples
    --------
    >>> import torch
    >>> from skvae.priors import MixturePrior
    >>> prior = MixturePrior(1, n_mixture=2)
    >>> prior.set_from([0.5, 0.5], [[-1.0], [1.0]], [[0.01], [0.01]])
    >>> with torch.no_grad():
    ...     prior.distribution().log_prob(torch.tensor([[1.0]])).exp()
    tensor([1.9947])
    """

    def __init__(
        self,
        n_components: int,
        n_mixture: int = 10,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(n_components)
        if n_mixture < 1:
            raise ValueError(f"n_mixture must be at least 1. Got {n_mixture!r}.")
        self.n_mixture = int(n_mixture)
        shape = (self.n_mixture, self.n_components)
        if generator is None:
            generator = torch.Generator().manual_seed(0)
        # Means and normals share the variance, so that the total starts near 1.
        half = math.sqrt(0.5)
        self.log_weights = nn.Parameter(torch.zeros(self.n_mixture))
        self.means = nn.Parameter(half * torch.randn(shape, generator=generator))
        self.log_vars = nn.Parameter(torch.full(shape, 2.0 * math.log(half)))

    @torch.no_grad()
    def set_from(self, weights: Any, means: Any, variances: Any) -> None:
        """Set the mixture, such as one fitted on the codes of the training rows.

        Parameters
        ----------
        weights : array-like of shape (n_mixture,)
            Positive weights; scaled to sum to 1.
        means : array-like of shape (n_mixture, n_components)
            Means.
        variances : array-like of shape (n_mixture, n_components)
            Positive variances.

        Raises
        ------
        ValueError
            If a shape differs, a value is not finite or a weight or variance is not
            positive.
        """
        given = {"weights": weights, "means": means, "variances": variances}
        own = (self.log_weights, self.means, self.log_vars)
        values = []
        for (name, value), parameter in zip(given.items(), own, strict=True):
            tensor = torch.as_tensor(value).to(parameter.device, parameter.dtype)
            if tensor.shape != parameter.shape:
                raise ValueError(
                    f"{name} must have shape {tuple(parameter.shape)}. "
                    f"Got {tuple(tensor.shape)}."
                )
            if not bool(tensor.isfinite().all()):
                raise ValueError(f"{name} must be finite.")
            if name != "means" and not bool((tensor > 0).all()):
                raise ValueError(f"{name} must be positive.")
            values.append(tensor)
        self.log_weights.copy_(torch.log(values[0] / values[0].sum()))
        self.means.copy_(values[1])
        self.log_vars.copy_(torch.log(values[2]).clamp_min(MIN_LOG_VAR))

    def distribution(
        self, encode: Encode | None = None, condition: Tensor | None = None
    ) -> PriorDistribution:
        """Give the mixture; see `Prior`."""
        log_weights = torch.log_softmax(self.log_weights, dim=0)
        return DiagonalMixture(log_weights, self.means, self.log_vars)


class ConditionalMixturePrior(MixturePrior):
    r"""A mixture of normals that depends on the condition of a row.

    .. math:: p(z \mid y) = \sum_m \mathrm{softmax}_m(b + A y) \,
              N(z; \mu_m + B y, \mathrm{diag}\, \sigma_m^2)

    With classes as conditions each class has a mixture of its own, of normals that
    all share; with numbers the mixture moves along with them.

    Parameters
    ----------
    n_components : int
        Number of components of a code.
    n_conditions : int
        Numbers the condition of a row is written as.
    n_mixture : int, default=10
        Number of normals.

    Attributes
    ----------
    gates : Parameter of shape (n_mixture, n_conditions)
        :math:`A`.
    shift : Parameter of shape (n_components, n_conditions)
        :math:`B`.
    log_weights, means, log_vars : Parameter
        As in `MixturePrior`.

    See Also
    --------
    MixturePrior : The same for all rows.

    Examples
    --------
    >>> import torch
    >>> from skvae.priors import ConditionalMixturePrior
    >>> prior = ConditionalMixturePrior(1, n_conditions=1, n_mixture=1)
    >>> prior.set_from([1.0], [[0.0]], [[1.0]])
    >>> with torch.no_grad():
    ...     _ = prior.shift.fill_(3.0)
    ...     p = prior.distribution(condition=torch.tensor([[0.0], [2.0]]))
    ...     p.log_prob(torch.tensor([[0.0], [6.0]]))
    tensor([-0.9189, -0.9189])
    """

    def __init__(
        self, n_components: int, n_conditions: int, n_mixture: int = 10
    ) -> None:
        super().__init__(n_components, n_mixture)
        self.gates = nn.Parameter(torch.zeros(self.n_mixture, n_conditions))
        self.shift = nn.Parameter(torch.zeros(self.n_components, n_conditions))

    def distribution(
        self, encode: Encode | None = None, condition: Tensor | None = None
    ) -> PriorDistribution:
        """Give the mixture of each row; see `Prior`.

        Raises
        ------
        ValueError
            If `condition` is not given.
        """
        if condition is None:
            raise ValueError(
                "ConditionalMixturePrior.distribution needs condition, one row each."
            )
        logits = self.log_weights + condition @ self.gates.mT
        return ConditionalMixture(
            torch.log_softmax(logits, dim=-1),
            condition @ self.shift.mT,
            self.means,
            self.log_vars,
        )


class VampPrior(Prior):
    r"""The mean posterior of learned pseudo-inputs [1]_.

    .. math:: p(z) = \frac1M \sum_m q(z \mid u_m)

    Parameters
    ----------
    n_components : int
        Number of components of a code.
    pseudo_inputs : Tensor of shape (n_mixture, n_features)
        Start of the pseudo-inputs, such as rows drawn from the training set; copied.

    Attributes
    ----------
    pseudo_inputs : Parameter of shape (n_mixture, n_features)
        Learned pseudo-inputs, in the units of the encoder's input.

    Raises
    ------
    ValueError
        If `pseudo_inputs` is not a 2-D floating point tensor with at least one row.

    See Also
    --------
    MixturePrior : A mixture of normals learned with the model.

    References
    ----------
    .. [1] Tomczak, J. M. and Welling, M. (2018). "VAE with a VampPrior." AISTATS.

    Examples
    --------
    >>> import torch
    >>> from skvae.priors import VampPrior
    >>> prior = VampPrior(1, torch.tensor([[0.0], [4.0]]))
    >>> p = prior.distribution(lambda u: (u, torch.zeros_like(u)))
    >>> p.draw(3, torch.Generator().manual_seed(0)).shape
    torch.Size([3, 1])
    """

    def __init__(self, n_components: int, pseudo_inputs: Tensor) -> None:
        super().__init__(n_components)
        if (
            pseudo_inputs.dim() != 2
            or pseudo_inputs.numel() == 0
            or not pseudo_inputs.is_floating_point()
        ):
            raise ValueError(
                "pseudo_inputs must be a floating point tensor of shape (n_mixture, "
                f"n_features). Got {pseudo_inputs.dtype} of shape "
                f"{tuple(pseudo_inputs.shape)}."
            )
        self.n_mixture = pseudo_inputs.shape[0]
        self.pseudo_inputs = nn.Parameter(pseudo_inputs.detach().clone())

    def distribution(
        self, encode: Encode | None = None, condition: Tensor | None = None
    ) -> PriorDistribution:
        """Give the mixture of the pseudo-inputs' posteriors; see `Prior`.

        Raises
        ------
        ValueError
            If `encode` is not given.
        """
        if encode is None:
            raise ValueError(
                "VampPrior.distribution needs encode, the model's encoder."
            )
        means, log_vars = encode(self.pseudo_inputs)
        log_weights = means.new_full((self.n_mixture,), -math.log(self.n_mixture))
        return DiagonalMixture(log_weights, means, log_vars)


PRIORS: dict[str, type[Prior]] = {
    "normal": NormalPrior,
    "mixture": MixturePrior,
    "vamp": VampPrior,
}
