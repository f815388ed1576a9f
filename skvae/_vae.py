"""A variational autoencoder as a scikit-learn transformer and density model."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from skvae._base import BaseAutoencoder, Recipe
from skvae._build import resolved_terms
from skvae._compat import Interval, StrOptions, warn
from skvae._conditioning import drawn_given
from skvae._docs import estimator
from skvae._module import log_mean_exp
from skvae._passes import check_count
from skvae._random import draw_torch_generator, even_normals
from skvae.likelihoods import LIKELIHOODS
from skvae.objectives import KLDivergence, NegativeLogLikelihood
from skvae.priors import PRIORS, normal_kl

_MAX_DIAGNOSED = 5000
# Variance of a posterior mean over the rows above which a component is in use.
_ACTIVE = 0.01
_COLLAPSED = 0.01
_RANDOM_START_WARMUP = 0.1


@estimator
class VAE(BaseAutoencoder):
    r"""Model rows by a variational autoencoder that starts at factor analysis.

    A row is explained by a code :math:`z` with prior :math:`p(z)` through a network,
    :math:`p(x \mid z)`; a second network gives the approximate posterior
    :math:`q(z \mid x) = N(\mu(x), \mathrm{diag}\,\sigma^2(x))`. Training maximises

    .. math:: E_{q(z \mid x)}[\log p(x \mid z)]
              - \beta \, KL(q(z \mid x) \,\|\, p(z))

    summed over columns and components and averaged over rows, in nats, so that
    ``beta=1`` is the evidence lower bound whatever the size of the table. On numeric
    data the start is factor analysis with rotated loadings, whose exact posterior is
    diagonal: at step 0 the bound with ``prior="normal"`` *is* the log-likelihood of
    factor analysis, and with a mixture close to it. With ``prior="vamp"`` it is lower,
    often by far, since the posteriors of a few rows are a narrow prior.

    Use it to generate rows, to score how typical a row is, and for codes with an
    uncertainty. For codes alone, :class:`AutoencoderTransformer` is cheaper.

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
    %(init)s
    %(encoder)s
    %(decoder)s
    %(scale)s
    %(categorical_features)s
    %(missing_values)s
    %(device)s
    %(callbacks)s
    %(net_params)s
    %(likelihood)s
    %(noise)s
    %(beta)s
    %(kl_warmup)s
    %(free_bits)s
    %(n_importance_samples)s
    %(prior)s

    Attributes
    ----------
    %(n_components_)s
    %(net_)s
    %(n_iter_)s
    %(loss_curve_)s
    %(validation_loss_curve_)s
    %(best_loss_)s
    %(baseline_loss_)s
    noise_variance_ : ndarray of shape (n_features,)
        Variance of a gaussian likelihood, in squared units of the columns (averaged
        over the training rows where it depends on the code).
    %(kl_per_component_)s
    %(n_active_components_)s
    %(n_features_in_)s
    %(feature_names_in_)s
    %(batch_size_)s
    %(max_iter_)s
    %(input_noise_)s
    %(learning_rate_)s
    %(center_)s
    %(scale_)s
    %(likelihood_)s
    %(noise_)s
    %(device_)s

    See Also
    --------
    AutoencoderTransformer : Codes without a likelihood.
    sklearn.decomposition.FactorAnalysis : The linear model training starts at.

    References
    ----------
    .. [1] Kingma, Welling (2014). Auto-Encoding Variational Bayes. arXiv:1312.6114
    .. [2] Burda, Grosse, Salakhutdinov (2016). Importance Weighted Autoencoders.
       arXiv:1509.00519
    .. [3] Tomczak, Welling (2018). VAE with a VampPrior. arXiv:1705.07120

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from skvae import VAE
    >>> X, _ = load_wine(return_X_y=True)
    >>> vae = VAE(3, max_iter=20, random_state=0).fit(X)
    >>> vae.sample(2, random_state=0).shape
    (2, 13)
    >>> mean, std = vae.transform(X, return_std=True)
    >>> bool((std < 1).mean() > 0.9)
    True
    """

    likelihood: str | dict[Any, str] = "auto"
    noise: str | float = "auto"
    beta: float | str = "auto"
    kl_warmup: float | str = "auto"
    free_bits: float = 0.0
    n_importance_samples: int = 1
    prior: str = "auto"

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **BaseAutoencoder._parameter_constraints,
        "likelihood": [
            StrOptions({"auto", "table", *LIKELIHOODS}),
            dict,
        ],
        "noise": [
            StrOptions({"auto", "feature", "shared", "heteroscedastic"}),
            Interval(Real, 0, None, closed="neither"),
        ],
        "beta": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "kl_warmup": [Interval(Real, 0, 1, closed="both"), StrOptions({"auto"})],
        "free_bits": [Interval(Real, 0, None, closed="left")],
        "n_importance_samples": [Interval(Integral, 1, None, closed="left")],
        "prior": [StrOptions({"auto", *PRIORS})],
    }

    def _recipe(self) -> Recipe:
        warmup = self.kl_warmup
        if warmup == "auto":
            warmup = 0.0 if self.init == "auto" else _RANDOM_START_WARMUP
        kl = KLDivergence(self.beta, warmup=float(warmup), free_bits=self.free_bits)
        noise = self.noise
        likelihood = "table" if isinstance(self.likelihood, dict) else self.likelihood
        # A textbook network (random start) is trained as in the textbooks.
        kinds = ("auto", "gaussian", "table")
        denoises = self.init == "auto" and likelihood in kinds
        return Recipe(
            terms=(NegativeLogLikelihood(), kl),
            variational=True,
            likelihood=likelihood,
            noise=noise if isinstance(noise, str) else float(noise),
            prior=self.prior,
            corruption="gaussian" if denoises else None,
            corruption_level="auto" if denoises else 0.0,
            n_importance_samples=self.n_importance_samples,
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = self.likelihood == "poisson"
        is_table = isinstance(self.likelihood, dict) or self.likelihood == "table"
        tags.input_tags.sparse = not is_table
        return tags

    def transform(self, X: Any, *, return_std: bool = False) -> Any:
        """Encode rows: the mean of the posterior of their codes.

        Parameters
        ----------
        X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
            Rows in the units seen in `fit`.
        return_std : bool, default=False
            Whether to return the standard deviation too.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_components)
            Posterior means, in the dtype of `X`.
        std : ndarray of shape (n_samples, n_components)
            Posterior standard deviations; only with ``return_std=True``.
        """
        if not return_std:
            return super().transform(X)
        check_is_fitted(self)
        X = self._validate(X, reset=False)
        dataset, module = self._dataset(X), self._module
        shape = (len(dataset), self.n_components_)
        mean, std = np.empty(shape, self._dtype), np.empty(shape, self._dtype)
        with self._inference():
            for part, batch in self._chunks(dataset):
                inputs = module.encoder_input(**batch)
                means, log_var = module.posterior(inputs)
                mean[part] = means.cpu().numpy()
                std[part] = torch.exp(0.5 * log_var).cpu().numpy()
        dtype = self._output_dtype(X)
        return mean.astype(dtype, copy=False), std.astype(dtype, copy=False)

    def score_samples(self, X: Any, *, n_importance_samples: int = 32) -> np.ndarray:
        r"""Compute a lower bound of the log-likelihood of each row.

        .. math:: \log \frac1K \sum_k \frac{p(x, z_k)}{q(z_k \mid x)}
                  \le \log p(x), \qquad z_k \sim q(z \mid x)

        The bound [1]_ is tighter the more draws it takes; the draws, a scrambled Sobol
        sequence, are fixed with the model and shared by all rows, so scores do not
        depend on which rows are scored together. ``beta``, free bits and warm-up take
        no part.

        Parameters
        ----------
        X : {array-like, sparse matrix, DataFrame} of shape (n_samples, n_features)
            Rows in the units seen in `fit`. Missing cells of numbers are left out of
            the sum, those of a table have a probability of their own. They are refused
            by models of complete rows, and in columns of a table that had none.
        n_importance_samples : int, default=32
            Draws :math:`K` of the code per row; 1 is the evidence lower bound with a
            single draw.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Nats per row in the units of the data, comparable with
            ``FactorAnalysis.score_samples``.

        References
        ----------
        .. [1] Burda, Grosse, Salakhutdinov (2016). Importance Weighted Autoencoders,
           eq. 8. arXiv:1509.00519
        """
        check_is_fitted(self)
        return self._bounds(self._validate(X, reset=False), n_importance_samples)

    def _bounds(
        self, X: Any, n_importance_samples: int, **arrays: np.ndarray
    ) -> np.ndarray:
        """Return the bound of each validated row, given what else it carries."""
        check_count("n_importance_samples", n_importance_samples)
        self._refuse_beyond_support(X)
        arrays = {name: a.astype(self._dtype) for name, a in arrays.items()}
        dataset, module = self._dataset(X, **arrays), self._module
        scores = np.empty(len(dataset), dtype=self._dtype)
        jacobian = self._to_device(self._columns.log_jacobian)
        with self._inference():
            noise = self._shared_noise(n_importance_samples)
            for part, batch in self._chunks(dataset, repeats=n_importance_samples):
                bound = log_mean_exp(module.log_weights(noise, **batch))
                seen = batch.get("mask")
                bound += jacobian.sum() if seen is None else seen @ jacobian
                scores[part] = bound.cpu().numpy()
        return scores

    def _shared_noise(self, n: int) -> torch.Tensor:
        """Return the draws all rows share: the first n of one fixed sequence."""
        noise = even_normals(n, self.n_components_, self.evaluation_seed_)
        return noise.to(next(self._module.parameters()))

    # -- fitted attributes and sampling ------------------------------------------------
    def _finish(self, dataset: Any) -> None:
        """Diagnose the posterior over some training rows."""
        columns, module = self._columns, self._module
        if columns.kind == "numeric":
            self.center_, self.scale_ = columns.center, columns.scale
        batch = dataset.take(self._some_rows(len(dataset), _MAX_DIAGNOSED))
        module.eval()
        inputs = module.encoder_input(**batch)
        mean, log_var = module.posterior(inputs)
        self.kl_per_component_ = normal_kl(mean, log_var).mean(0).cpu().numpy()
        self.n_active_components_ = int((mean.var(0, correction=0) > _ACTIVE).sum())
        if self.likelihood_ == "gaussian":
            likelihood = module.likelihood
            self.noise_ = self._architecture.noise
            if likelihood.noise == "heteroscedastic":
                raw = module.decode(mean, module.known(batch.get("condition")))
                variance = likelihood.noise_variance(raw).mean(0)
            else:
                variance = likelihood.noise_variance()
            variance = variance.detach().cpu().numpy()
            self.noise_variance_ = columns.squared_units(variance)
        collapsed = bool(np.all(self.kl_per_component_ < _COLLAPSED))
        if collapsed and self.n_iter_ and len(dataset) > 1:
            warn(
                "Posterior collapse: no component of the code carries more than "
                f"{_COLLAPSED} nats, so the codes say nothing about the rows. Lower "
                f"beta={self._resolved_beta():g}, or set free_bits or kl_warmup.",
                ConvergenceWarning,
            )

    def _resolved_beta(self) -> float:
        terms = resolved_terms(self._recipe(), self._architecture.table)
        return next(t.weight for t in terms if isinstance(t, KLDivergence))

    def sample(
        self, n_samples: int = 1, random_state: Any = None, *, given: Any = None
    ) -> Any:
        """Draw new rows from the model, with some columns given if asked for.

        Parameters
        ----------
        n_samples : int, default=1
            Rows to draw; for each row of `given` if that is a frame.
        random_state : int, RandomState instance or None, default=None
            Seeds the draw; an int gives the same rows at every call.
        given : dict or DataFrame, default=None
            Values of columns, such as ``{"income": ">50K", "age": 30}``, or partly
            filled rows. A missing value asks for a missing cell in a dict, as in
            ``{"income": None}``, and for a cell to be drawn in a data frame. The
            other columns are drawn from their distribution given these, by
            importance sampling; a warning says where few proposals carry the weight,
            or where cells are 300 times rarer together than unrelated columns would
            make them. A number stands for the bin it lies in. Needs a model with
            ``likelihood="table"``.

        Returns
        -------
        X : {ndarray, DataFrame} of shape (n_samples, n_features)
            Rows in the units, and the container, seen in `fit`.

        Raises
        ------
        ValueError
            If `given` names an unknown column or level.

        Notes
        -----
        Up to 12 288 rows of a table (fewer above 21 columns) are picked from two to 32
        times as many, such that their counts of pairs of levels are not off by chance;
        each row has the distribution of the model.
        """
        if given is None:
            return super().sample(n_samples, random_state)
        check_is_fitted(self)
        check_count("n_samples", n_samples)
        if self._columns.kind != "table":
            raise ValueError(
                "given needs a model with likelihood='table', this one has "
                f"likelihood={self.likelihood_!r}. Fit VAE(likelihood='table')."
            )
        device = next(self._module.parameters()).device
        generator = draw_torch_generator(random_state, device)
        with self._inference():
            codes, fixed = drawn_given(self, int(n_samples), given, generator)
        rng = np.random.default_rng(int(generator.initial_seed()))
        return self._columns.codec.decode(codes, rng, fixed)

    def _draw_codes(
        self,
        n: int,
        generator: torch.Generator,
        condition: torch.Tensor | None = None,
    ) -> torch.Tensor:
        z = self._module.prior_distribution(condition).draw(n, generator)
        return z.to(next(self._module.parameters()).dtype)
