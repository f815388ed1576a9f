"""
Which rows are odd, and which of their cells?
=============================================

Most rows of the breast cancer data are benign. A detector that has seen benign rows
only should give malignant ones a low score. The likelihood of a variational
autoencoder does, and it says which cells it did not expect. Errors in single cells
are harder: the value alone is nothing special, only its company is.
"""

# %%
# Rows of another kind
# --------------------
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import IsolationForest
from sklearn.metrics import RocCurveDisplay, roc_auc_score
from sklearn.model_selection import train_test_split

from skvae import VAE
from skvae.outliers import AutoencoderOutlierDetector

cancer = load_breast_cancer(as_frame=True)
benign, malignant = cancer.data[cancer.target == 1], cancer.data[cancer.target == 0]
train, held_out = train_test_split(benign, test_size=0.4, random_state=0)

ours = AutoencoderOutlierDetector(VAE(6, random_state=0), contamination=0.02)
ours.fit(train)
forest = IsolationForest(random_state=0).fit(train)


def areas(inliers, outliers):
    """Return the area under the ROC curve of both detectors."""
    odd = np.r_[np.zeros(len(inliers)), np.ones(len(outliers))]
    return [
        roc_auc_score(
            odd, -np.r_[model.score_samples(inliers), model.score_samples(outliers)]
        )
        for model in (forest, ours)
    ]


print(
    "malignant among benign, ROC AUC: IsolationForest {:.3f}, ours {:.3f}".format(
        *areas(held_out, malignant)
    )
)

# %%
# One wrong cell
# --------------
# In each held-out row one cell is replaced by that of another row. The cell that the
# model expected least should be the one replaced.
rng = np.random.default_rng(0)
places = rng.integers(benign.shape[1], size=len(held_out))
wrong = held_out.to_numpy().copy()
rows = np.arange(len(wrong))
wrong[rows, places] = rng.permuted(held_out.to_numpy(), axis=0)[rows, places]
wrong = (
    held_out.iloc[:0]
    .reindex(range(len(wrong)))
    .astype(float)
    .assign(**dict(zip(held_out.columns, wrong.T, strict=True)))
)
print(
    "one cell swapped, ROC AUC:       IsolationForest {:.3f}, ours {:.3f}".format(
        *areas(held_out, wrong)
    )
)
cells = ours.feature_scores(wrong)
ranked = np.argsort(-cells, axis=1)
first = np.mean(ranked[:, 0] == places)
top3 = np.mean((ranked[:, :3] == places[:, None]).any(axis=1))
print(f"the swapped cell is the least expected one in {first:.0%} of the rows,")
print(f"among the three least expected in {top3:.0%} (by chance 3 % and 10 %)")

# %%
# Curves, and the cells of the six rows with the lowest scores
# ------------------------------------------------------------
fig, (left, right) = plt.subplots(
    1, 2, figsize=(10, 4.6), width_ratios=[1, 2], layout="constrained"
)
for outliers, kind, style in ((malignant, "malignant", "-"), (wrong, "swap", "--")):
    odd = np.r_[np.zeros(len(held_out)), np.ones(len(outliers))]
    for model, name, color in ((forest, "forest", "C7"), (ours, "ours", "C0")):
        scores = -np.r_[model.score_samples(held_out), model.score_samples(outliers)]
        RocCurveDisplay.from_predictions(
            odd,
            scores,
            ax=left,
            name=f"{name}, {kind}",
            curve_kwargs={"linestyle": style, "color": color},
        )
left.set(title="Outliers found", xlabel="false alarms", ylabel="outliers found")
left.legend(fontsize=8)

lowest = np.argsort(ours.score_samples(wrong))[:6]
image = right.imshow(
    np.clip(cells[lowest], 1, None), norm=LogNorm(), cmap="magma_r", aspect="auto"
)
right.scatter(
    places[lowest], np.arange(6), marker="s", s=90, fc="none", ec="cyan", lw=2
)
right.set_xticks(range(benign.shape[1]), benign.columns, rotation=90, fontsize=7)
right.set_yticks(range(6), [f"row {i}" for i in lowest])
right.set_title("How unexpected is each cell? (square: the cell replaced)")
fig.colorbar(image, ax=right, label="nats")
plt.show()
