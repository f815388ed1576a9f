"""An autoencoder whose code is insensitive to small changes of a row."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

from skvae._base import BaseAutoencoder, Recipe
from skvae._compat import Interval, StrOptions
from skvae._deterministic import DeterministicMixin
from skvae._docs import estimator
from skvae._jacobian import PENALTY_METHODS
from skvae.objectives import Contraction, NegativeLogLikelihood


@estimator
class ContractiveAutoencoder(DeterministicMixin, BaseAutoencoder):
    r"""Learn codes that react little to small changes of a row.

    An autoencoder whose encoder pays for the size of its Jacobian [1]_. It minimises

    .. math:: \frac1n \sum_i \tfrac12 \|x_i - \hat x_i\|^2
              + \alpha \, \|J(x_i)\|_F^2, \qquad
              J_{kj} = \frac{\partial z_k}{\partial x_j}

    over the scaled rows :math:`x_i` with codes :math:`z_i`. Reconstruction needs the
    directions in which the rows vary; all others are flattened, and the code becomes
    a chart of the manifold the rows lie on.

    A decoder with weights of its own can undo a common factor of all codes, so part
    of what a strong penalty achieves is a smaller scale: compare Jacobian norms
    relative to the spread of the codes, or tie the weights as in [1]_.

    Parameters
    ----------
    %(n_components)s
    %(hidden_layer_sizes)s
    %(activation)s
    %(batch_size)s
    %(learning_rate_init)s
    %(max_iter)s
    %(early_stopping)s
    %(validation_fraction)s
    %(n_iter_no_change)s
    %(warm_start)s
    %(random_state)s
    %(verbose)s
    %(weight_decay)s
    %(dropout)s
    %(init_layerwise)s
    %(encoder)s
    %(decoder)s
    %(scale)s
    %(categorical_features)s
    %(missing_values)s
    %(device)s
    %(callbacks)s
    %(net_params)s
    alpha : float, default=0.1
        Strength of the penalty, in nats per squared unit of the code and squared
        unit of the scaled columns. 0 leaves the penalty out.
    jacobian : {"auto", "exact", "subset", "hutchinson"}, default="auto"
        How the penalty is computed while training: exactly for every row; exactly
        for a random part of the rows, one in ``min(n_components, n_features)``; or
        by one random projection a row. All are unbiased. ``"auto"`` is exact for at
        most one hidden layer and a part of the rows for deeper encoders and for
        modules of one's own.
    %(code_activation)s
    tied_weights : bool, default=False
        Whether the decoder uses the encoder's weights transposed. With an `encoder`
        or a `decoder` of one's own there is nothing to tie.

    Attributes
    ----------
    %(n_components_)s
    %(net_)s
    %(n_iter_)s
    %(loss_curve_)s
    %(validation_loss_curve_)s
    %(best_loss_)s
    %(baseline_loss_)s
    %(explained_variance_ratio_)s
    %(noise_variance_)s
    %(n_features_in_)s
    %(feature_names_in_)s
    %(batch_size_)s
    %(max_iter_)s
    %(learning_rate_)s
    %(center_)s
    %(scale_)s
    %(likelihood_)s
    %(device_)s

    See Also
    --------
    DenoisingAutoencoder : Robust to large changes of a row, by examples.
    AutoencoderTransformer : Without the penalty.

    Notes
    -----
    The penalty takes part in validation too, computed as while training but for the
    same evenly spaced rows, or the same projections, in every epoch. With one hidden
    layer, :math:`z = A x + V a(U x + b)`, and :math:`d = a'(U x + b)`, the squared norm
    is a closed expression in the weights,

    .. math:: \|J\|_F^2 = \|A\|_F^2 + 2 \sum_h d_h (U A^\top V)_{hh}
              + d^\top (V^\top V \odot U U^\top) d ,

    which costs about as much as the reconstruction. Missing cells count as columns
    at their mean.

    References
    ----------
    .. [1] Rifai, Vincent, Muller, Glorot, Bengio (2011). Contractive Auto-Encoders:
       Explicit Invariance During Feature Extraction. ICML.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skvae import ContractiveAutoencoder
    >>> X, _ = load_digits(return_X_y=True)
    >>> settings = dict(hidden_layer_sizes=(64,), max_iter=20, random_state=0)
    >>> free = ContractiveAutoencoder(10, alpha=0, **settings).fit(X)
    >>> model = ContractiveAutoencoder(10, alpha=0.1, **settings).fit(X)
    >>> model.transform(X).shape
    (1797, 10)
    >>> bool(model.jacobian_norm(X).mean() < 0.8 * free.jacobian_norm(X).mean())
    True
    """

    alpha: float = 0.1
    jacobian: str = "auto"
    code_activation: str | None = None
    tied_weights: bool = False

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseAutoencoder._parameter_constraints,
        "init": [StrOptions({"auto", "random", "layerwise"})],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "jacobian": [StrOptions(set(PENALTY_METHODS))],
        "code_activation": [StrOptions({"logistic", "relu"}), None],
        "tied_weights": ["boolean"],
    }

    def _recipe(self) -> Recipe:
        terms: tuple = (NegativeLogLikelihood(),)
        if self.alpha > 0:
            terms += (Contraction(weight=self.alpha, method=self.jacobian),)
        return Recipe(
            terms=terms, code_activation=self.code_activation, tied=self.tied_weights
        )
