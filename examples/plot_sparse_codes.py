"""
How sparse should the code be?
==============================

With ``penalty="kl"`` the code is a layer of sigmoids, and each of them is asked to be
active for a given share of the rows only. There may be more of them than columns: a
row is then described by the few that fire. Two questions: does the mean activation
follow the target, and how strong should the penalty be?
"""

# %%
# Does the activation follow the target?
# --------------------------------------
# A hundred units for 64 pixels. The mean activation is measured on new rows.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline

from skvae import AutoencoderTransformer

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, test_size=0.3, random_state=0, stratify=y
)


def sparse(alpha, target):
    """Return a sparse autoencoder with one layer of a hundred units."""
    return AutoencoderTransformer(
        100,
        hidden_layer_sizes=(),
        penalty="kl",
        alpha=alpha,
        sparsity_target=target,
        batch_size=256,
        learning_rate_init=0.01,
        max_iter=200,
        random_state=0,
    )


targets = [0.05, 0.1, 0.2, 0.3]
means = {}
for target in targets:
    means[target] = sparse(1.0, target).fit(X_train).transform(X_test).mean(axis=0)
    low, high = np.quantile(means[target], [0.1, 0.9])
    print(
        f"target {target:.2f}: mean activation {means[target].mean():.3f}, "
        f"most units between {low:.3f} and {high:.3f}"
    )

# %%
# How strong should the penalty be?
# ---------------------------------
# The score of the model is the R2 of its reconstruction, without the penalty, so that
# models of different `alpha` compare. The baselines are a classifier of the pixels, and
# one of as many principal components as there are pixels. A weak penalty makes the code
# sparse at little cost; a strong one costs reconstruction and accuracy.
alphas = [0.0, 0.01, 0.1, 1.0, 10.0]
table = []
for alpha in alphas:
    classifier = make_pipeline(sparse(alpha, 0.1), LogisticRegression(max_iter=3000))
    classifier.fit(X_train, y_train)
    codes = classifier[0].transform(X_test)
    row = classifier[0].score(X_test), classifier.score(X_test, y_test), codes.mean()
    table.append(row)
    print(
        "alpha {:5.2f}: R2 {:.3f}, accuracy {:.3f}, activation {:.3f}".format(
            alpha, *row
        )
    )
for name, baseline in (
    ("pixels", LogisticRegression(max_iter=5000)),
    ("PCA", make_pipeline(PCA(), LogisticRegression(max_iter=5000))),
):
    accuracy = baseline.fit(X_train, y_train).score(X_test, y_test)
    print(f"baseline, {name}: accuracy {accuracy:.3f}")

# %%
# What the units fire for
# -----------------------
# The mean of the digits, weighted by how strongly a unit fires for each, less the mean
# of all digits. Without a penalty every unit is half on for every digit; with it, a
# unit fires for digits that have a stroke (red) and lack another (blue).
firing = {}
for alpha in (0.0, 1.0):
    codes = sparse(alpha, 0.05).fit(X_train).transform(X_train)
    patterns = codes.T @ X_train / codes.sum(axis=0)[:, None] - X_train.mean(axis=0)
    strongest = np.argsort(-np.abs(patterns).sum(axis=1))[:20]
    firing[alpha] = patterns[strongest].reshape(-1, 8, 8)
r2, accuracy, activation = zip(*table, strict=True)

fig = plt.figure(figsize=(10, 3.8), layout="constrained")
parts = fig.subfigures(1, 3, width_ratios=[6, 3, 3])
first, second = parts[0].subplots(1, 2)
first.violinplot(list(means.values()), positions=targets, widths=0.04, showmeans=True)
first.axline((0, 0), slope=1, color="C1", linewidth=1)
first.set(xlabel="sparsity_target", ylabel="mean activation of each unit, new rows")
second.plot(range(5), r2, "o-", label="R2")
second.plot(range(5), accuracy, "s-", label="accuracy")
second.plot(range(5), activation, "^-", label="mean activation")
second.axhline(0.1, color="C2", linestyle=":", label="target")
second.set_xticks(range(5), [f"{alpha:g}" for alpha in alphas])
second.set(xlabel="alpha", ylim=(0, 1.02))
second.legend(fontsize=8, loc="center right")
for part, (alpha, patterns) in zip(parts[1:], firing.items(), strict=True):
    for ax, pattern in zip(part.subplots(5, 4).ravel(), patterns, strict=True):
        ax.imshow(pattern, cmap="RdBu_r", vmin=-6, vmax=6)
        ax.set(xticks=[], yticks=[])
    part.suptitle(f"20 units, alpha={alpha:g}")
plt.show()
