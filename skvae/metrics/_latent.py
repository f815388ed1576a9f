"""What the codes of an autoencoder carry, and how well rows come back from them."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import mutual_info_score
from sklearn.utils import check_array, check_consistent_length


def active_components(mean_codes: Any, threshold: float = 0.01) -> np.ndarray:
    r"""Find the components whose posterior mean moves with the rows.

    Component :math:`k` is active when
    :math:`\operatorname{Var}_x(E_{q(z|x)}[z_k]) >` `threshold`; one that is not has
    collapsed to the prior, and could be left out.

    Parameters
    ----------
    mean_codes : array-like of shape (n_samples, n_components)
        Posterior means, what ``VAE.transform`` returns.
    threshold : float, default=0.01
        Variance above which a component counts, in units of a standard normal prior.

    Returns
    -------
    active : ndarray of shape (n_components,), bool
        Its sum is the number of active components.

    References
    ----------
    .. [1] Burda, Grosse, Salakhutdinov (2016). Importance Weighted Autoencoders,
       section 5. arXiv:1509.00519

    Examples
    --------
    >>> from skvae.metrics import active_components
    >>> active_components([[-1.0, 0.001], [1.0, -0.001]])
    array([ True, False])
    """
    codes = check_array(mean_codes, dtype=np.float64)
    return codes.var(axis=0) > threshold


def mutual_information_gap(codes: Any, factors: Any, *, n_bins: int = 20) -> float:
    r"""Compute how much better one component knows each factor than the next one does.

    .. math:: \frac1K \sum_k \frac{I(z_{(1)}; v_k) - I(z_{(2)}; v_k)}{H(v_k)}

    with :math:`z_{(1)}, z_{(2)}` the two components that share the most information
    with factor :math:`v_k`. A code is cut into equal bins over its range.

    Parameters
    ----------
    codes : array-like of shape (n_samples, n_components)
        Codes, of two components or more.
    factors : array-like of shape (n_samples,) or (n_samples, n_factors)
        Known discrete factors of variation.
    n_bins : int, default=20
        Bins of each code. With few rows, fewer bins bias the information less.

    Returns
    -------
    gap : float
        1 when every factor has a component of its own, 0 when each is spread evenly.

    Raises
    ------
    ValueError
        If there is one component only, or a factor is constant.

    References
    ----------
    .. [1] Chen, Li, Grosse, Duvenaud (2018). Isolating Sources of Disentanglement in
       Variational Autoencoders, eq. 6. arXiv:1802.04942

    Examples
    --------
    >>> import numpy as np
    >>> from skvae.metrics import mutual_information_gap
    >>> factors = np.array([[0, 0], [0, 1], [1, 0], [1, 1]] * 10)
    >>> round(mutual_information_gap(factors.astype(float), factors), 6)
    1.0
    """
    codes = check_array(codes, dtype=np.float64, ensure_min_features=2)
    factors = np.asarray(factors)
    factors = factors[:, None] if factors.ndim == 1 else factors
    check_consistent_length(codes, factors)
    binned = [
        np.digitize(code, np.histogram_bin_edges(code, bins=n_bins)[1:-1])
        for code in codes.T
    ]
    gaps = []
    for j, factor in enumerate(factors.T):
        entropy = mutual_info_score(factor, factor)
        if entropy <= 0:
            raise ValueError(f"Factor {j} is constant: no component can know it.")
        shared = np.sort([mutual_info_score(factor, code) for code in binned])
        gaps.append((shared[-1] - shared[-2]) / entropy)
    return float(np.mean(gaps))


def reconstruction_r2_score(estimator: Any, X: Any, y: Any = None) -> float:
    r"""Compute the share of the variance of X that survives encoding and decoding.

    .. math:: 1 - \sum_{ij} (x_{ij} - \hat x_{ij})^2 / \sum_{ij} (x_{ij} - \bar x_j)^2

    with the column means of `X` itself. A scorer for ``GridSearchCV(scoring=...)``
    that takes any estimator with ``reconstruct``, or with ``transform`` and
    ``inverse_transform``, so PCA and autoencoders stand side by side.

    Parameters
    ----------
    estimator : estimator instance
        Fitted estimator.
    X : array-like of shape (n_samples, n_features)
        Complete numeric rows. Scale columns of different units first: they are
        weighted by their variance.
    y : None
        Ignored, present for API consistency.

    Returns
    -------
    score : float
        1 for a perfect reconstruction, 0 for the column means. Where no column
        varies, 1 for a perfect reconstruction and 0 for any other, as in
        :func:`sklearn.metrics.r2_score`.

    Raises
    ------
    ValueError
        If the reconstruction has another shape than `X`.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.decomposition import PCA
    >>> from skvae.metrics import reconstruction_r2_score
    >>> X = load_iris().data
    >>> pca = PCA(2).fit(X)
    >>> score = reconstruction_r2_score(pca, X)
    >>> bool(abs(score - pca.explained_variance_ratio_.sum()) < 1e-9)
    True
    """
    if hasattr(estimator, "reconstruct"):
        back = estimator.reconstruct(X)
    else:
        back = estimator.inverse_transform(estimator.transform(X))
    X = check_array(X, accept_sparse=False, dtype=np.float64)
    back = check_array(back, dtype=np.float64)
    if back.shape != X.shape:
        raise ValueError(
            f"The reconstruction must have the shape of X, {X.shape}. Got {back.shape}."
        )
    error = float(np.square(X - back).sum())
    # A constant column may differ from its rounded mean.
    total = float(np.square(X - X.mean(axis=0))[:, np.ptp(X, axis=0) > 0].sum())
    return 1.0 - error / total if total > 0 else float(error == 0)
