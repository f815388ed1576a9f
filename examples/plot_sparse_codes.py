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
# models of different `alpha` compare. The baseline are the pixels, and as many
# principal components as there are pixels.
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
# What the units look for
# -----------------------
# The decoder writes each unit as an image: what is added when it fires.
model = sparse(1.0, 0.1).fit(X_train)
silent = model.inverse_transform(np.zeros((1, 100)))
strokes = (model.inverse_transform(np.eye(100)) - silent).reshape(-1, 8, 8)
strongest = np.argsort(-np.abs(strokes).sum(axis=(1, 2)))[:25]
r2, accuracy, activation = zip(*table, strict=True)

fig = plt.figure(figsize=(11, 4.2), layout="constrained")
left, right = fig.subfigures(1, 2, width_ratios=[3, 2])
first, second = left.subplots(1, 2)
first.violinplot(list(means.values()), positions=targets, widths=0.04, showmeans=True)
first.axline((0, 0), slope=1, color="C1", linewidth=1)
first.set(xlabel="sparsity_target", ylabel="mean activation of each unit, new rows")
second.plot(range(5), r2, "o-", label="R2")
second.plot(range(5), accuracy, "s-", label="accuracy of a linear classifier")
second.plot(range(5), activation, "^-", label="mean activation")
second.set_xticks(range(5), [f"{alpha:g}" for alpha in alphas])
second.set(xlabel="alpha", ylim=(0, 1.02))
second.legend(fontsize=8, loc="center left")
for ax, k in zip(right.subplots(5, 5).ravel(), strongest, strict=True):
    size = np.abs(strokes[k]).max()
    ax.imshow(strokes[k], cmap="RdBu_r", vmin=-size, vmax=size)
    ax.set_axis_off()
right.suptitle("What 25 units add (red) and take away (blue)")
plt.show()
