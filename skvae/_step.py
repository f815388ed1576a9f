"""One training step in closed form: forward, loss and gradients without a graph.

For the usual models - plain networks, gaussian or bernoulli columns, one draw from a
gaussian posterior, a normal or a mixture as prior - every derivative is known, and on
small networks the graph costs more than the arithmetic. `closed_step` returns None for
any other model, which then takes the ordinary step; both give the same gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from skvae._contraction import ContractionStep, has_closed_form
from skvae._fused import backward_in_place, forward_saving
from skvae._mixture_density import (
    LOG_TAU,
    log_prob_saving,
    through_codes,
    through_normals,
    weigh,
)
from skvae._module import joined_gradient, split_posterior, through_draw
from skvae._networks import LinearPlusMLP
from skvae.likelihoods import Bernoulli, Gaussian
from skvae.objectives import (
    Contraction,
    KLDivergence,
    NegativeLogLikelihood,
    Sparsity,
    kl_bernoulli,
)
from skvae.priors import MixturePrior, NormalPrior

Step = Callable[..., tuple[Tensor, list[Tensor]]]
# Noise, log-variance and standard deviation of a draw of the posterior.
Drawn = tuple[Tensor, Tensor, Tensor]
_HALF_LOG_TAU = 0.5 * LOG_TAU


def closed_step(module: Any, objective: Any) -> Step | None:
    """Return the step of a module, or None where it has no closed form here.

    Parameters
    ----------
    module : AutoencoderModule
        The module, its gradients bound to a flat buffer.
    objective : Objective
        The terms of the loss.

    Returns
    -------
    step : callable or None
        ``step(x=..., condition=...)`` writes the gradients of the loss over those in
        the bound buffers and returns the loss and the mean of each term.
    """
    if not _has_closed_form(module, objective):
        return None
    return _ClosedStep(module, objective)


def _has_closed_form(module: Any, objective: Any) -> bool:
    plain = all(
        type(net) is LinearPlusMLP and net.grad_buffers is not None and not net.dropout
        for net in (module.encoder, module.decoder)
    )
    likelihood = module.likelihood
    simple = type(likelihood) in (Bernoulli, Gaussian)
    prior = module.prior is None or type(module.prior) in (NormalPrior, MixturePrior)
    if not (plain and simple and prior) or module.features is not None:
        return False
    if module.n_importance_samples > 1:
        return False
    if module.code_activation not in (None, torch.sigmoid, torch.relu):
        return False
    kinds = [type(term) for term in objective.terms]
    if NegativeLogLikelihood not in kinds or len(set(kinds)) < len(kinds):
        return False
    return all(_is_simple(term, module) for term in objective.terms)


def _is_simple(term: Any, module: Any) -> bool:
    if type(term) is NegativeLogLikelihood:
        return term.weight == 1
    if type(term) is KLDivergence:
        return term.free_bits == 0
    if type(term) is Contraction:
        return has_closed_form(module, term.method)
    return type(term) is Sparsity


class _ClosedStep:
    def __init__(self, module: Any, objective: Any):
        self.module = module
        self.objective = objective
        self.likelihood = _likelihood_step(module.likelihood)
        self.has_mixture = type(module.prior) is MixturePrior
        kinds = {type(term): term for term in objective.terms}
        self.kl: Any = kinds.get(KLDivergence)
        self.sparsity: Any = kinds.get(Sparsity)
        self.contraction: Any = kinds.get(Contraction)
        if self.contraction is not None:
            self.contract = ContractionStep(module, self.contraction.method)

    @torch.no_grad()
    def __call__(
        self, x: Tensor, condition: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        module, progress = self.module, self.objective.progress
        inputs = module.corruption(x, module.noise) if module.corruption else x
        encoder = module.encoder.grad_buffers
        decoder = module.decoder.grad_buffers
        code, kept = forward_saving(encoder, inputs)
        z, drawn = self._draw(code)
        to_decode = z if condition is None else torch.cat([z, condition], dim=1)
        raw, kept_decoder = forward_saving(decoder, to_decode)
        nll, grad = self.likelihood(module.likelihood, x, raw)
        grad = backward_in_place(decoder, to_decode, kept_decoder, grad, True)
        if condition is not None:
            grad = grad[:, : z.shape[1]]
        values = {"nll": nll}
        if self.sparsity is not None:
            values["sparsity"] = self._add_sparsity(z, grad, progress)
        if drawn is not None:
            weight = self.kl.weight_at(progress) if self.kl is not None else 0.0
            if self.has_mixture:
                values["kl"] = _add_mixture(module.prior, z, *drawn[:2], grad, weight)
                grad = _sampled(code, drawn, grad, weight)
            else:
                values["kl"], grad = _posterior(code, drawn, grad, weight)
        elif module.code_activation is not None:
            is_relu = module.code_activation is torch.relu
            grad = grad * (z > 0 if is_relu else z * (1 - z))
        if self.contraction is None:
            backward_in_place(encoder, inputs, kept, grad, False)
        else:
            weight = self.contraction.weight_at(progress)
            values["contraction"], extra, add = self.contract(inputs, kept, weight)
            backward_in_place(encoder, inputs, kept, grad, False, extra)
            add()
        parts = [values[term.name] for term in self.objective.terms]
        if len(parts) == 1:
            return nll, parts
        weights = [term.weight_at(progress) for term in self.objective.terms]
        loss = parts[0] * weights[0]
        for part, weight in zip(parts[1:], weights[1:], strict=True):
            loss = torch.add(loss, part, alpha=weight)
        return loss, parts

    def _draw(self, code: Tensor) -> tuple[Tensor, Drawn | None]:
        """Return the code, and for a variational model how it was drawn."""
        module = self.module
        if module.prior is None:
            activation = module.code_activation
            return (code if activation is None else activation(code)), None
        mean, _, log_var, std = split_posterior(code)
        noise = torch.empty_like(mean, memory_format=torch.contiguous_format)
        noise.normal_(generator=module.noise)
        return torch.addcmul(mean, std, noise), (noise, log_var, std)

    def _add_sparsity(self, z: Tensor, grad: Tensor, progress: float) -> Tensor:
        """Add the gradient of the penalty in place and return its mean."""
        term = self.sparsity
        weight = term.weight_at(progress) / len(z)
        if term.kind == "l1":
            grad.add_(torch.sign(z), alpha=weight)
            return z.abs().sum() / len(z)
        if term.kind == "l2":
            grad.add_(z, alpha=2 * weight)
            return z.square().sum() / len(z)
        eps = torch.finfo(z.dtype).eps
        mean, target = z.mean(dim=0), term.target
        inside = mean.clamp(eps, 1 - eps)
        slope = (inside - target) / (inside * (1 - inside))
        grad.add_(slope * (inside == mean), alpha=weight)
        return kl_bernoulli(target, mean).sum()


def _likelihood_step(likelihood: Any) -> Callable[..., tuple[Tensor, Tensor]]:
    if type(likelihood) is Bernoulli:
        return _bernoulli
    by_code = likelihood.noise == "heteroscedastic"
    return _heteroscedastic if by_code else _gaussian


def _gaussian(likelihood: Any, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean negative log-density and its gradient; write the scale's."""
    n, d = x.shape
    difference = raw.sub_(x)
    if not isinstance(likelihood.noise, str):
        precision = likelihood.noise**-2
        level = d * (_HALF_LOG_TAU + math.log(likelihood.noise))
        flat = difference.view(-1)
        loss = torch.dot(flat, flat).mul_(0.5 * precision / n).add_(level)
        return loss, difference.mul_(precision / n)
    shifted = likelihood.log_scale - likelihood._log_floor
    log_sd = torch.nn.functional.softplus(shifted).add_(likelihood._log_floor)
    precision = torch.exp(log_sd * -2.0)
    squares = difference.square().mean(dim=0).mul_(precision)
    # One scale for all columns counts once for each of them.
    loss = torch.add(log_sd, squares, alpha=0.5).sum().add_(d * _HALF_LOG_TAU)
    slope = 1.0 - squares
    if log_sd.numel() == 1:
        slope = slope.sum().view(1)
    torch.mul(slope, torch.sigmoid(shifted), out=likelihood.log_scale.grad)
    return loss, difference.mul_(precision / n)


def _heteroscedastic(likelihood: Any, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
    """Do so where the decoder gives the scales as well."""
    n, d = x.shape
    shifted = raw[:, d:] + (likelihood.log_scale - likelihood._log_floor)
    log_sd = torch.nn.functional.softplus(shifted).add_(likelihood._log_floor)
    inverse = torch.exp(-log_sd)
    standardised = (raw[:, :d] - x).mul_(inverse)
    squares = standardised.square()
    loss = torch.add(log_sd, squares, alpha=0.5).sum().div_(n).add_(d * _HALF_LOG_TAU)
    grad = torch.empty_like(raw)
    torch.mul(standardised, inverse.mul_(1 / n), out=grad[:, :d])
    slope = (1 - squares).mul_(torch.sigmoid_(shifted))
    torch.mul(slope, 1 / n, out=grad[:, d:])
    torch.sum(grad[:, d:], dim=0, out=likelihood.log_scale.grad)
    return loss, grad


def _bernoulli(likelihood: Any, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean negative log-likelihood and its gradient."""
    loss = torch.nn.functional.binary_cross_entropy_with_logits(raw, x, reduction="sum")
    return loss / len(x), raw.sigmoid_().sub_(x).mul_(1 / len(x))


def _posterior(
    code: Tensor, drawn: Drawn, grad_z: Tensor, weight: float
) -> tuple[Tensor, Tensor]:
    """Return the mean divergence and the gradient of the posterior's parameters.

    KL = (m^2 + s^2 - 1 - log s^2) / 2 per component, z = m + s eps.
    """
    noise, log_var, std = drawn
    n, k = noise.shape
    mean, raw = code.chunk(2, dim=1)
    variance = std.square()
    kl = torch.addcmul(variance - log_var, mean, mean).sum()
    kl = kl.mul_(0.5 / n).sub_(0.5 * k)
    share = weight / n
    to_mean, to_log_var = through_draw(grad_z, std, noise)
    to_mean = torch.add(to_mean, mean, alpha=share)
    to_log_var.add_(variance.sub_(1), alpha=0.5 * share)
    return kl, joined_gradient(to_mean, to_log_var, raw, log_var)


def _add_mixture(
    prior: Any, z: Tensor, noise: Tensor, log_var: Tensor, grad_z: Tensor, weight: float
) -> Tensor:
    """Return the mean of log q(z | x) - log p(z) and add what z receives from p.

    The gradients of the mixture are written over those of the last step.
    """
    n, k = z.shape
    log_weights = torch.log_softmax(prior.log_weights, dim=0)
    log_p, parts = log_prob_saving(z, log_weights, prior.means, prior.log_vars)
    log_q = torch.addcmul(log_var, noise, noise).sum().add_(n * k * LOG_TAU)
    weighted = weigh(torch.full_like(log_p, -weight / n), parts)
    grad_z += through_codes(weighted, parts)
    to_weights, to_means, to_log_vars = through_normals(
        weighted, parts, prior.means, prior.log_vars
    )
    prior.means.grad.copy_(to_means)
    prior.log_vars.grad.copy_(to_log_vars)
    # The weights add up to one.
    shares = torch.exp(log_weights)
    torch.sub(to_weights, shares * to_weights.sum(), out=prior.log_weights.grad)
    return log_q.mul_(-0.5).sub_(log_p.sum()).div_(n)


def _sampled(code: Tensor, drawn: Drawn, grad_z: Tensor, weight: float) -> Tensor:
    """Return the gradient of the posterior's parameters, log q included."""
    noise, log_var, std = drawn
    to_mean, to_log_var = through_draw(grad_z, std, noise)
    to_log_var.sub_(0.5 * weight / len(noise))
    return joined_gradient(to_mean, to_log_var, code.chunk(2, dim=1)[1], log_var)
