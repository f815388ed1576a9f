"""
Better than PCA in a pipeline, new digits and a new table?
==========================================================

Three things one does with an autoencoder: reduce dimensions in a pipeline whose
regularisation is grid-searched, draw new images, draw a new table. Real data, on one
core, in well under two minutes.
"""

# %%
# Reduce dimensions in a grid-searched pipeline
# ---------------------------------------------
# The same classifier on the same number of components, once of PCA and once of an
# autoencoder that starts at PCA and keeps what helps on held-out rows. The score of an
# autoencoder has no penalty in it, so strengths of a penalty can be compared.
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits, load_wine
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import Pipeline

from skvae import VAE, AutoencoderTransformer

try:
    OUTPUT = Path(__file__).parent / "output"
except NameError:  # Sphinx-Gallery runs the file without a name.
    OUTPUT = Path("output")
OUTPUT.mkdir(exist_ok=True)

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, test_size=0.3, random_state=0, stratify=y
)


def searched(reducer, grid):
    """Fit a pipeline over a grid and return it with its accuracy on new digits."""
    pipeline = Pipeline([("ae", reducer), ("clf", LogisticRegression(max_iter=2000))])
    search = GridSearchCV(pipeline, grid, cv=3, n_jobs=2).fit(X_train, y_train)
    return search, search.score(X_test, y_test)


autoencoder = AutoencoderTransformer(penalty="l2", max_iter=60, random_state=0)
ours, accuracy = searched(
    autoencoder, {"ae__n_components": [4, 8], "ae__alpha": [0.01, 0.1]}
)
k = ours.best_params_["ae__n_components"]
_, baseline = searched(PCA(random_state=0), {"ae__n_components": [k]})
print(f"Chosen: {ours.best_params_}")
print(
    f"Accuracy on new digits, {k} components: PCA {baseline:.3f}, ours {accuracy:.3f}"
)

# %%
# Draw new digits
# ---------------
# A variational autoencoder is a density: `sample` draws codes from the prior and
# pixels from the likelihood; `inverse_transform` gives the mean of the pixels.
vae = VAE(12, noise="feature", random_state=0).fit(X)
codes = np.random.RandomState(0).normal(size=(80, 12))
grid = vae.inverse_transform(codes).reshape(5, 16, 8, 8)

fig, axes = plt.subplots(5, 16, figsize=(8, 2.6))
for ax, image in zip(axes.ravel(), grid.reshape(-1, 8, 8), strict=True):
    ax.imshow(image, cmap="gray_r", vmin=0, vmax=16)
    ax.set_axis_off()
fig.suptitle("Digits drawn by VAE(12)")
fig.tight_layout()
fig.savefig(OUTPUT / "digits.png", dpi=130)

# %%
# Draw a new table
# ----------------
# A data frame in, a data frame out: same columns, same types, the same dependence.
wine = load_wine(as_frame=True)
table = wine.frame.drop(columns="target").assign(
    cultivar=pd.Categorical.from_codes(wine.target, wine.target_names)
)
synthesiser = VAE(random_state=0).fit(table)
synthetic = synthesiser.sample(1000, random_state=0)
print(synthetic.head(3).T)
assert (synthetic.dtypes == table.dtypes).all()

real_correlation = table.corr(numeric_only=True)
new_correlation = synthetic.corr(numeric_only=True)
difference = (real_correlation - new_correlation).abs().to_numpy()
print(f"Largest difference of two correlations: {difference.max():.2f}")

fig, axes = plt.subplots(1, 2, figsize=(8, 3.8))
for ax, matrix, title in (
    (axes[0], real_correlation, "178 real wines"),
    (axes[1], new_correlation, "1000 synthetic wines"),
):
    picture = ax.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
    ax.set_title(title)
    ax.set_xticks([])
    ax.set_yticks([])
fig.colorbar(picture, ax=axes, label="correlation")
fig.savefig(OUTPUT / "wine.png", dpi=130)
plt.show()
