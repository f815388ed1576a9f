"""
Can a model write the digit I ask for?
======================================

A conditional variational autoencoder is told the class of each row while it is
trained. So it draws rows of a class one asks for, without drawing many and throwing
most away, and it can show what a row would have been like in another class.
"""

# %%
# Ask for each digit
# ------------------
# The judge is a classifier that has seen real digits only. The baseline has no
# network: ten factor analyses, one a class, which is hard to beat at drawing but knows
# nothing of what the classes share.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import FactorAnalysis
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

from skvae import ConditionalVAE

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, test_size=0.3, random_state=0, stratify=y
)
judge = SVC(C=10).fit(X_train, y_train)
print(f"judge on new real digits: {judge.score(X_test, y_test):.3f}")

model = ConditionalVAE(8, max_iter=100, random_state=0).fit(X_train, y_train)
asked = np.repeat(np.arange(10), 100)
drawn, _ = model.sample(len(asked), y=asked, random_state=0)
print(f"judge on digits drawn by ConditionalVAE: {judge.score(drawn, asked):.3f}")


def drawn_by_factors(rows, n, rng):
    """Draw n rows from a factor analysis of the rows."""
    factors = FactorAnalysis(4, random_state=0).fit(rows)
    noise = rng.normal(size=(n, rows.shape[1])) * np.sqrt(factors.noise_variance_)
    return rng.normal(size=(n, 4)) @ factors.components_ + factors.mean_ + noise


rng = np.random.default_rng(0)
parts = [drawn_by_factors(X_train[y_train == c], 100, rng) for c in range(10)]
print(
    "judge on digits drawn by ten factor analyses: "
    f"{judge.score(np.concatenate(parts), asked):.3f}"
)
right = np.mean(model.predict(X_test) == y_test)
print(f"accuracy of the model's own predict: {right:.3f}")

# %%
# The same hand, another digit
# ----------------------------
# The code holds what the class does not say. A new digit that is decoded as another
# class should keep its style: its slant, its width and its ink, each compared with the
# mean of the class it is shown as. (A correlation of 1 would keep all of it.)
place = np.arange(8) - 3.5


def style(rows):
    """Return slant, width and ink of images."""
    images = np.clip(rows, 0, None).reshape(-1, 8, 8)
    ink = images.sum(axis=(1, 2))
    right = place - (images.sum(axis=1) @ place / ink)[:, None]
    down = place - (images.sum(axis=2) @ place / ink)[:, None]
    slant = np.einsum("nij,ni,nj->n", images, down, right)
    slant /= np.einsum("nij,ni->n", images, down**2)
    width = np.sqrt(np.einsum("nij,nj->n", images, right**2) / ink)
    return np.column_stack([slant, width, ink])


def within(values, classes):
    """Subtract from each row the mean of its class."""
    means = np.array([values[classes == c].mean(axis=0) for c in range(10)])
    return values - means[classes]


as_other = (y_test + rng.integers(1, 10, len(y_test))) % 10
before = within(style(X_test), y_test)
after = within(style(model.reconstruct(X_test, y=as_other)), as_other)
for k, name in enumerate(("slant", "width", "ink")):
    kept = np.corrcoef(before[:, k], after[:, k])[0, 1]
    print(f"{name}, before and after: correlation {kept:.2f}")

# %%
# Look at them
# ------------
# On the left, digits drawn on request, a row a class. On the right, six new threes
# (blue), each decoded as all ten classes: the most slanted to either side, the
# narrowest, the widest, the ones with least and most ink.
threes = np.flatnonzero(y_test == 3)
order = np.argsort(before[threes], axis=0)
originals = threes[order[[0, -1]].T.ravel()]
names = ["leans right", "leans left", "narrow", "wide", "thin", "bold"]
others = [
    model.reconstruct(X_test[originals], y=c).reshape(-1, 8, 8) for c in range(10)
]


def show(ax, image):
    """Draw one digit without a frame."""
    ax.imshow(image, cmap="gray_r", vmin=0, vmax=16)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


fig = plt.figure(figsize=(11, 4.6), layout="constrained")
left, right = fig.subfigures(1, 2, width_ratios=[10, 11])
for c, line in enumerate(left.subplots(10, 12)):
    for ax, image in zip(line, drawn[asked == c].reshape(-1, 8, 8), strict=False):
        show(ax, image)
left.suptitle("Drawn on request")
for i, line in enumerate(right.subplots(6, 11)):
    show(line[0], X_test[originals[i]].reshape(8, 8))
    line[0].imshow(np.ones((8, 8)), cmap="Blues", alpha=0.15, vmin=0, vmax=1)
    line[0].set_ylabel(names[i], rotation=0, ha="right", va="center")
    for c in range(10):
        show(line[c + 1], others[c][i])
right.suptitle("New threes (blue) as each class")
plt.show()
