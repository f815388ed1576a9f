"""
Half of the cells are missing: what were they?
==============================================

Autoencoders learn how columns depend on each other, from rows with gaps as well.
Here every second cell of the breast cancer data is hidden, and the guesses of three
imputers are compared with the truth.
"""

# %%
# Hide cells and guess them
# -------------------------
# Missing cells are left out of the loss, and the encoder is told which they are. The
# error is in standard deviations of the columns, so filling in their means has an error
# of about 1. The columns depend on each other almost linearly, which suits
# `IterativeImputer`: it is quicker and nearly as close.
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.preprocessing import StandardScaler

from skvae import VAE
from skvae.imputation import AutoencoderImputer

cancer = load_breast_cancer()
X = StandardScaler().fit_transform(cancer.data)
hidden = np.random.default_rng(0).random(X.shape) < 0.5
gaps = np.where(hidden, np.nan, X)

imputers = {
    "mean": SimpleImputer(),
    "KNNImputer": KNNImputer(),
    "IterativeImputer": IterativeImputer(max_iter=10, tol=0.05, random_state=0),
    "AutoencoderImputer": AutoencoderImputer(
        VAE(10, likelihood="gaussian", max_iter=200, random_state=0)
    ),
}
filled = {}
for name, imputer in imputers.items():
    start = perf_counter()
    filled[name] = imputer.fit_transform(gaps)
    error = np.sqrt(np.mean((filled[name] - X)[hidden] ** 2))
    print(f"{name:19s} error {error:.3f}  in {perf_counter() - start:.1f} s")

# %%
# How sure is a guess?
# --------------------
# One guess hides how uncertain it is. `impute` draws several completed tables from the
# posterior of the model; the interval that 19 draws of a cell span should hold the
# truth in nine of ten cases.
model = imputers["AutoencoderImputer"].estimator_
some = slice(0, 100)
draws = np.stack(model.impute(gaps[some], n_samples=19, random_state=0))
low, high = draws.min(axis=0), draws.max(axis=0)
inside = ((low <= X[some]) & (X[some] <= high))[hidden[some]].mean()
print(f"truth within the span of 19 draws: {inside:.1%} of the cells (ideal: 90 %)")

# %%
# Guess against truth
# -------------------
fig, axes = plt.subplots(
    1, 3, figsize=(11, 4), sharex=True, sharey=True, layout="constrained"
)
for ax, name in zip(axes, list(imputers)[1:], strict=True):
    error = np.sqrt(np.mean((filled[name] - X)[hidden] ** 2))
    ax.hexbin(
        X[hidden],
        filled[name][hidden],
        gridsize=60,
        extent=(-3, 5, -3, 5),
        bins="log",
        cmap="Blues",
        mincnt=1,
    )
    ax.axline((0, 0), slope=1, color="C1", linewidth=1)
    ax.set(title=f"{name}: error {error:.3f}", xlabel="truth", xlim=(-3, 5))
    ax.set(ylim=(-3, 5), aspect="equal")
axes[0].set_ylabel("guess")
fig.suptitle("Hidden cells, in standard deviations of their columns")
plt.show()
