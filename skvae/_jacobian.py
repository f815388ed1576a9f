"""The squared norm of an encoder's Jacobian, without ``autograd.grad``.

For the networks of this package the derivative is a product of weight matrices and
diagonal gates plus the linear path, J = M_0 D_1 M_1 D_2 ... M_L + A, written out in
ordinary operations: it works in validation, under inference mode, and its gradients
come from plain autograd. Other modules go through ``torch.func``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from skvae._factories import in_evaluation
from skvae._fused import get_activation
from skvae._networks import LinearPlusMLP

__all__ = ["Chain", "random_signs", "squared_jacobian_norm", "subset_of_rows"]

PENALTY_METHODS = ("auto", "exact", "subset", "hutchinson")
METHODS = (*PENALTY_METHODS, "product")
# Floats of one intermediate product of all rows while nothing is differentiated.
_CHUNK_FLOATS = 1 << 22
_CODE_ACTIVATIONS = {torch.sigmoid: "logistic", torch.relu: "relu"}


def squared_jacobian_norm(
    module: Any, x: Tensor, method: str, slopes: Tensor | None = None
) -> Tensor:
    """Return the squared Frobenius norm of d code / d x of each row.

    The Jacobian is that of the code as `transform` gives it (the mean of a
    posterior), without dropout, with respect to the columns, not to their mask.

    Parameters
    ----------
    module : AutoencoderModule
        Its encoder, code activation and, while training, `noise` are used.
    x : Tensor of shape (n_rows, n_inputs)
        Inputs of the encoder.
    method : {"auto", "exact", "subset", "hutchinson", "product"}
        ``"subset"`` gives the rows it draws their exact values times n_rows / n_drawn
        and the others zero; ``"hutchinson"`` draws one projection a row. Both are
        unbiased for every row, and draw the same at every call in evaluation.
        ``"product"`` is exact by way of the Jacobian itself, which also keeps its
        precision where linear path and network nearly cancel.
    slopes : Tensor of shape (n_rows, n_columns), default=None
        Derivatives of the inputs in the columns that they stand for, one by one; the
        norm is then with respect to these, and exact. None where both are the same.

    Returns
    -------
    squares : Tensor of shape (n_rows,)
        In squared units of the code per squared unit of the scaled columns.

    Raises
    ------
    ValueError
        If there is no such method.
    """
    if method not in METHODS:
        raise ValueError(
            f"The 'jacobian' parameter must be a str among {sorted(METHODS)}. "
            f"Got {method!r} instead."
        )
    if slopes is not None:
        return _of_module(module, x, "exact", slopes)
    network = type(module.encoder) is LinearPlusMLP and _known(module.code_activation)
    depth = len(module.encoder.biases) if network else 2
    method = resolved_method(method, depth)
    rows = None
    if method == "subset":
        rows = subset_of_rows(module, x, min(_sizes(module, x)))
        method = "exact"
    chosen = x if rows is None else x[rows]
    of = _of_network if network else _of_module
    values = of(module, chosen, method)
    if rows is None:
        return values
    share = len(x) / len(rows)
    return torch.zeros_like(x[:, 0]).index_copy(0, rows, values * share)


def resolved_method(method: str, depth: int) -> str:
    """Return the method that "auto" stands for, given the number of hidden layers."""
    if method != "auto":
        return method
    return "exact" if depth < 2 else "subset"


def subset_of_rows(module: Any, x: Tensor, rank: int) -> Tensor:
    """Draw the rows whose Jacobian is computed: about n_rows / rank of them.

    The cost of a Jacobian is its rank times that of a pass, so the exact norms of
    these rows cost about one pass over all.

    Parameters
    ----------
    module : AutoencoderModule
        Its `noise` draws while training; evaluation takes evenly spaced rows.
    x : Tensor of shape (n_rows, n_inputs)
        Inputs of the encoder.
    rank : int
        Largest rank of a Jacobian.

    Returns
    -------
    rows : Tensor of shape (n_chosen,)
        Indices, each at most once.
    """
    n = len(x)
    wanted = min(n, max(1, round(n / rank)))
    if not module.training:
        return torch.arange(wanted, device=x.device) * n // wanted
    noise = module.noise
    return torch.randperm(n, generator=noise, device=noise.device)[:wanted]


def _known(code_activation: Any) -> bool:
    return code_activation is None or code_activation in _CODE_ACTIVATIONS


def _sizes(module: Any, x: Tensor) -> tuple[int, int]:
    """Return components of the code and columns of the rows."""
    n_in = x.shape[-1]
    n_columns = n_in if module.features is not None else module.likelihood.n_features
    weight = getattr(module.encoder, "bias", None)
    if type(module.encoder) is LinearPlusMLP and weight is not None:
        n_out = len(weight)
    else:
        with torch.no_grad(), in_evaluation(module.encoder):
            n_out = module.encoder(x[:1]).shape[-1]
    return module.size_of_code(n_out), n_columns


def random_signs(module: Any, like: Tensor) -> Tensor:
    """Draw random signs; evaluation sees the same ones at every call.

    Parameters
    ----------
    module : AutoencoderModule
        Its `noise` draws while training.
    like : Tensor
        Gives shape, dtype and device.

    Returns
    -------
    signs : Tensor
        Ones and minus ones.
    """
    if module.training:
        generator = module.noise
    else:
        generator = torch.Generator(device=like.device).manual_seed(0)
    signs = torch.empty(like.shape, dtype=like.dtype, device=generator.device)
    return signs.bernoulli_(0.5, generator=generator).mul_(2).sub_(1)


# -- networks with a linear path ---------------------------------------------------
@dataclass(frozen=True)
class Chain:
    """The factors of Jacobians, J = slope (M_0 D_1 M_1 ... D_L M_L + A).

    Parameters
    ----------
    matrices : list of Tensor
        M_0 of shape (n_components, n_units) to M_L of shape (n_units, n_columns).
    gates : list of Tensor of shape (n_rows, n_units)
        Diagonals of D_1 to D_L: derivatives of the activations.
    linear : Tensor of shape (n_components, n_columns) or None
        The linear path A.
    slope : Tensor of shape (n_rows, n_components) or None, default=None
        Derivative of an activation of the code.
    """

    matrices: list[Tensor]
    gates: list[Tensor]
    linear: Tensor | None
    slope: Tensor | None = None

    def transposed(self) -> Chain:
        """Return the factors of the transposed Jacobians, apart from the slope."""
        return Chain(
            [m.t() for m in reversed(self.matrices)],
            self.gates[::-1],
            None if self.linear is None else self.linear.t(),
        )

    def rows(self, part: slice) -> Chain:
        """Return the factors of some of the rows."""
        slope = None if self.slope is None else self.slope[part]
        return replace(self, gates=[g[part] for g in self.gates], slope=slope)


def _of_network(module: Any, x: Tensor, method: str) -> Tensor:
    chain = _chain(module, x)
    if method == "hutchinson":
        return _projected(chain, module, x)
    if not chain.gates:
        return _constant(chain, len(x))
    if method == "exact" and len(chain.gates) == 1 and chain.slope is None:
        return _hadamard_gram(chain)
    short_cut = method == "exact"
    if torch.is_grad_enabled():
        return _product(chain, short_cut)
    widest = max(m.shape[1] for m in chain.matrices)
    rank = min(chain.matrices[0].shape[0], chain.matrices[-1].shape[1])
    size = max(1, _CHUNK_FLOATS // (widest * rank))
    starts = range(0, len(x), size)
    parts = [chain.rows(slice(s, s + size)) for s in starts]
    return torch.cat([_product(part, short_cut) for part in parts])


def _chain(module: Any, x: Tensor) -> Chain:
    encoder = module.encoder
    k, d = _sizes(module, x)
    weights = list(encoder.weights)
    linear = encoder.linear_weight
    if linear is not None:
        linear = F.pad(linear[:k, :d], (0, 0, 0, max(0, k - len(linear))))
    matrices = weights[::-1]
    gates: list[Tensor] = []
    pre: list[Tensor] = []
    if matrices:
        matrices[0] = matrices[0][:k]
        matrices[-1] = (matrices[-1] * encoder.in_scale)[:, :d]
        pre = encoder.pre_activations(x)
        gates = [encoder.activation.derivative(p) for p in reversed(pre)]
    if len(matrices) == 1:
        linear = matrices[0] if linear is None else linear + matrices[0]
    slope = None
    if module.code_activation is not None:
        activation = get_activation(_CODE_ACTIVATIONS[module.code_activation])
        slope = activation.derivative(_code(encoder, x, pre)[:, :k])
    return Chain(matrices, gates, linear, slope)


def _code(encoder: LinearPlusMLP, x: Tensor, pre: list[Tensor]) -> Tensor:
    """Return the output of the encoder, given its pre-activations."""
    out: Tensor = encoder.bias.expand(len(x), -1)
    if len(encoder.weights):
        hidden = encoder.activation(pre[-1]) if pre else x * encoder.in_scale
        out = F.linear(hidden, encoder.weights[-1], encoder.bias)
    if encoder.linear_weight is not None:
        path = F.linear(x, encoder.linear_weight)
        out = out + F.pad(path, (0, out.shape[1] - path.shape[1]))
    return out


def _constant(chain: Chain, n_rows: int) -> Tensor:
    """Return the squared norms of a Jacobian that only the slope varies."""
    assert chain.linear is not None
    per_component = chain.linear.square().sum(dim=1)
    if chain.slope is None:
        return per_component.sum().expand(n_rows)
    return chain.slope.square() @ per_component


def _hadamard_gram(chain: Chain) -> Tensor:
    """Return |A + V D U|^2 of one hidden layer without making a Jacobian.

    |A|^2 + 2 sum_h D_h (U A' V)_hh + sum_gh D_g D_h (V'V)_gh (UU')_gh
    """
    (to_code, to_hidden), (gates,) = chain.matrices, chain.gates
    gram = (to_code.t() @ to_code) * (to_hidden @ to_hidden.t())
    squares = ((gates @ gram) * gates).sum(dim=1)
    if chain.linear is None:
        return squares
    crossed = (to_code * (chain.linear @ to_hidden.t())).sum(dim=0)
    return squares + 2 * (gates @ crossed) + chain.linear.square().sum()


def _product(chain: Chain, short_cut: bool) -> Tensor:
    """Return the squared norms by multiplying the factors from the shorter end."""
    slope = chain.slope
    flip = chain.matrices[0].shape[0] > chain.matrices[-1].shape[1]
    turned = chain.transposed() if flip else chain
    first, *others = turned.matrices
    *inner, last = others
    partial = first * turned.gates[0].unsqueeze(1)
    for matrix, gate in zip(inner, turned.gates[1:], strict=True):
        partial = (partial @ matrix) * gate.unsqueeze(1)
    n_rows, rank, units = partial.shape
    width = last.shape[1]
    # Through the Gram matrix of the widest factor where that multiplies less.
    gram = units * (width + n_rows * rank) < n_rows * rank * width
    if short_cut and gram and (not flip or slope is None):
        squares = _through_gram(partial, last, turned.linear)
    else:
        jacobian = partial @ last
        if turned.linear is not None:
            jacobian = jacobian + turned.linear
        squares = jacobian.square().sum(dim=1 if flip else 2)
    if slope is not None:
        squares = squares * slope.square()
    return squares.sum(dim=1)


def _through_gram(partial: Tensor, last: Tensor, linear: Tensor | None) -> Tensor:
    """Return |partial_k last + linear_k|^2 of each row and component k."""
    through = partial @ (last @ last.t())
    if linear is None:
        return (through * partial).sum(dim=2)
    crossed = linear @ last.t()
    return ((through + 2 * crossed) * partial).sum(dim=2) + linear.square().sum(dim=1)


def _projected(chain: Chain, module: Any, x: Tensor) -> Tensor:
    """Return |J'v|^2 (or |Jv|^2, whichever vector is shorter) of random signs v."""
    slope, first = chain.slope, chain.linear
    if chain.gates:
        first = chain.matrices[0]
    assert first is not None
    last = chain.matrices[-1] if chain.gates else first
    flip = first.shape[0] > last.shape[1]
    turned = chain.transposed() if flip else chain
    rank = last.shape[1] if flip else first.shape[0]
    probe = random_signs(module, x[:, :1].expand(-1, rank))
    if slope is not None and not flip:
        probe = probe * slope
    through = None
    if chain.gates:
        through = probe
        for matrix, gate in zip(turned.matrices, turned.gates, strict=False):
            through = (through @ matrix) * gate
        through = through @ turned.matrices[-1]
    if turned.linear is not None:
        path = probe @ turned.linear
        through = path if through is None else through + path
    assert through is not None
    if slope is not None and flip:
        through = through * slope
    return through.square().sum(dim=1)


# -- modules of one's own ------------------------------------------------------------
def _of_module(
    module: Any, x: Tensor, method: str, slopes: Tensor | None = None
) -> Tensor:
    """Return the squared norms through torch.func; rows must not see each other."""
    differentiate = torch.is_grad_enabled()
    # torch.func differentiates by autograd, which inference tensors have no part in.
    with torch.inference_mode(False), torch.enable_grad():
        values = _by_products(module, x.clone(), method, slopes)
    return values if differentiate else values.detach()


def _by_products(module: Any, x: Tensor, method: str, slopes: Tensor | None) -> Tensor:
    k, d = _sizes(module, x)
    parameters = dict(module.encoder.named_parameters())

    def code(columns: Tensor) -> Tensor:
        rows = torch.cat([columns, x[:, d:]], dim=1)
        out = torch.func.functional_call(module.encoder, parameters, (rows,))
        out = out[:, :k]
        return out if module.code_activation is None else module.code_activation(out)

    with in_evaluation(module.encoder):
        pulled: Any = torch.func.vjp(code, x[:, :d])
        made, pull = pulled
        if method == "hutchinson":
            return pull(random_signs(module, made))[0].square().sum(dim=1)
        basis = torch.eye(k, dtype=made.dtype, device=made.device)
        basis = basis.unsqueeze(1).expand(k, *made.shape)
        (jacobian,) = torch.func.vmap(pull)(basis)
    if slopes is not None:
        # dz/dx = dz/df df/dx; what follows the features is the mask.
        jacobian = jacobian[..., : slopes.shape[1]] * slopes.clone()
    return jacobian.square().sum(dim=(0, 2))
