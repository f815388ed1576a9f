"""A deterministic autoencoder as a scikit-learn transformer."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

from skvae._base import BaseAutoencoder, Recipe
from skvae._compat import Interval, StrOptions
from skvae._deterministic import DeterministicMixin
from skvae._docs import estimator
from skvae.objectives import NegativeLogLikelihood, Sparsity


@estimator
class AutoencoderTransformer(DeterministicMixin, BaseAutoencoder):
    r"""Reduce dimensions with an autoencoder that starts at PCA.

    Encoder and decoder are each the sum of a linear path and a network,
    :math:`z = A x + f(x)` and :math:`\hat x = B z + g(z)`, and minimise

    .. math:: \frac1n \sum_i \tfrac12 \|x_i - \hat x_i\|^2 + \alpha \, \Omega(z_i)

    over the scaled rows :math:`x_i`, with the penalty :math:`\Omega` chosen by
    `penalty`. At the start the linear paths are the principal components and the
    networks end in zeros, so training can only add what PCA cannot see; the weights
    with the lowest held-out loss are kept, the start included.

    Use it where PCA loses too much at a small number of components. Where the
    likelihood of a row or the uncertainty of its code matters, use :class:`VAE`.

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
    penalty : {"kl", "l1", "l2"} or None, default=None
        Sparsity of the code: ``"kl"`` draws the mean activation of each component
        to `sparsity_target` and makes the code a sigmoid, which starts at random;
        ``"l1"`` and ``"l2"`` penalise the size of the code. These two shrink codes
        but make no zeros: the decoder can undo the scale.
    alpha : float, default=0.001
        Strength of the penalty, in nats per unit of penalty. Ignored without one. The
        default hardly acts: ``"kl"`` needs about 1 to reach its target, ``"l1"`` and
        ``"l2"`` 0.1 to shrink codes to less than half.
    sparsity_target : float, default=0.05
        Mean activation asked for by ``penalty="kl"``, in (0, 1).
    tied_weights : bool, default=False
        Whether the decoder uses the encoder's weights transposed.
    %(input_noise)s

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
    %(input_noise_)s
    %(learning_rate_)s
    %(center_)s
    %(scale_)s
    %(likelihood_)s
    %(device_)s

    See Also
    --------
    VAE : Autoencoder with a likelihood and a prior.
    sklearn.decomposition.PCA : The linear model training starts at.

    References
    ----------
    .. [1] Hinton, Salakhutdinov (2006). Reducing the Dimensionality of Data with
       Neural Networks. Science 313:504.
    .. [2] Ng (2011). Sparse autoencoder. CS294A lecture notes.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.decomposition import PCA
    >>> from skvae import AutoencoderTransformer
    >>> X, _ = load_digits(return_X_y=True)
    >>> model = AutoencoderTransformer(2, max_iter=20, random_state=0).fit(X)
    >>> model.transform(X).shape
    (1797, 2)
    >>> start = AutoencoderTransformer(2, max_iter=0, random_state=0).fit(X)
    >>> bool(model.score(X) > start.score(X) + 0.1)
    True
    """

    penalty: str | None = None
    alpha: float = 1e-3
    sparsity_target: float = 0.05
    tied_weights: bool = False
    input_noise: float | str = "auto"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseAutoencoder._parameter_constraints,
        "init": [StrOptions({"auto", "random", "layerwise"})],
        "penalty": [StrOptions({"kl", "l1", "l2"}), None],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "sparsity_target": [Interval(Real, 0, 1, closed="neither")],
        "tied_weights": ["boolean"],
        "input_noise": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
    }

    def _recipe(self) -> Recipe:
        terms: tuple = (NegativeLogLikelihood(),)
        if self.penalty is not None:
            terms += (
                Sparsity(
                    weight=self.alpha, kind=self.penalty, target=self.sparsity_target
                ),
            )
        return Recipe(
            terms=terms,
            corruption="gaussian",
            corruption_level=self.input_noise,
            code_activation="logistic" if self.penalty == "kl" else None,
            tied=self.tied_weights,
        )
