"""An autoencoder that restores rows from corrupted ones."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

from skvae._base import BaseAutoencoder, Recipe
from skvae._compat import Interval, StrOptions
from skvae._deterministic import DeterministicMixin
from skvae._docs import estimator
from skvae.corruptions import CORRUPTIONS
from skvae.objectives import NegativeLogLikelihood


@estimator
class DenoisingAutoencoder(DeterministicMixin, BaseAutoencoder):
    r"""Learn codes from which rows can be restored though they were corrupted.

    While training the encoder sees :math:`\tilde x \sim q(\tilde x \mid x)`, the loss
    asks for the clean row [1]_:

    .. math:: \frac1n \sum_i \tfrac12 \| x_i - \hat x(\tilde x_i) \|^2 ,
              \qquad \hat x(\tilde x) = g(f(\tilde x))

    over the scaled rows :math:`x_i`, with fresh corruption in every epoch. To undo
    it, the code must use how columns depend on each other. Nothing is corrupted
    outside of training: `transform` sees rows as they are.

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
    corruption : {"gaussian", "masking", "salt_and_pepper", "swap"} or callable, \
            default="masking"
        ``"gaussian"`` adds normal noise; ``"masking"`` sets cells to zero (the mean
        of a standardised column); ``"salt_and_pepper"`` to the lowest or highest
        value of their column, or to 0 or the top of the range that all columns share
        (pixels, see `scale`); ``"swap"`` to the value of another row in the same
        column. A callable gets scaled rows, a tensor of shape (n_rows, n_features),
        and a :class:`torch.Generator`, and returns a tensor like the first. Of a table
        it gets and returns codes, integers from 0; -1 hides a cell.
    corruption_level : float, default=0.25
        Standard deviation of gaussian noise in units of the scaled columns, else the
        probability of a cell to be changed, in [0, 1]. 0 is none. Ignored with a
        callable.
    %(code_activation)s
    tied_weights : bool, default=False
        Whether the decoder uses the encoder's weights transposed.

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
    ContractiveAutoencoder : Robust to small changes of a row, by its derivative.
    AutoencoderImputer : Fills missing cells instead.

    Notes
    -----
    Held-out rows are corrupted as well, the same way in every epoch, so that the
    weights kept are those that denoise best: without it an overcomplete model would
    stay at the identity it starts at. Where training rows have missing cells, the
    encoder is told which; corrupted cells still count as observed, so it must find
    out about them by itself.

    References
    ----------
    .. [1] Vincent, Larochelle, Lajoie, Bengio, Manzagol (2010). Stacked Denoising
       Autoencoders. Journal of Machine Learning Research 11:3371.

    Examples
    --------
    A model that has seen corrupted rows restores them better:

    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from skvae import DenoisingAutoencoder
    >>> X, _ = load_digits(return_X_y=True)
    >>> hidden = np.random.default_rng(0).random(X.shape) < 0.25
    >>> def error(corruption_level):
    ...     model = DenoisingAutoencoder(
    ...         corruption_level=corruption_level, max_iter=20, random_state=0
    ...     ).fit(X)
    ...     restored = model.reconstruct(np.where(hidden, 0.0, X))
    ...     return float(np.square(restored - X).mean())
    >>> error(corruption_level=0.25) < 0.7 * error(corruption_level=0.0)
    True
    """

    corruption: Any = "masking"
    corruption_level: float = 0.25
    code_activation: str | None = None
    tied_weights: bool = False

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseAutoencoder._parameter_constraints,
        "init": [StrOptions({"auto", "random", "layerwise"})],
        "corruption": [StrOptions(set(CORRUPTIONS)), callable],
        "corruption_level": [Interval(Real, 0, None, closed="left")],
        "code_activation": [StrOptions({"logistic", "relu"}), None],
        "tied_weights": ["boolean"],
    }

    def _recipe(self) -> Recipe:
        return Recipe(
            terms=(NegativeLogLikelihood(),),
            corruption=self.corruption,
            corruption_level=self.corruption_level,
            corrupts_held_out=True,
            code_activation=self.code_activation,
            tied=self.tied_weights,
        )
